"""Files that are written for llama.cpp, read back by ``gguf``; what it makes of them, the engines' tests see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import InvalidConfig
from terakoya.models.gguf_tokenizer import read_gguf_tokenizer
from terakoya.models.gguf_writer import write_adapter, write_model


def tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def test_the_weights_are_the_models_own(tiny_base: ModelArtifact, tmp_path: Path) -> None:
    write_model(tiny_base.path, tmp_path / "m.gguf", weights="f32")
    saved, written = load_file(tiny_base.path / "model.safetensors"), tensors(tmp_path / "m.gguf")
    assert len(saved) == len(written)
    for name, inner in (("mlp.down_proj", "ffn_down"), ("self_attn.v_proj", "attn_v")):
        found = written[f"blk.1.{inner}.weight"].data
        np.testing.assert_array_equal(found, saved[f"model.layers.1.{name}.weight"].numpy())
    queries = saved["model.layers.0.self_attn.q_proj.weight"].numpy()
    found = written["blk.0.attn_q.weight"].data
    assert not np.array_equal(found, queries)
    # Of a head with 16 rows: halves become neighbours.
    np.testing.assert_array_equal(found[0::2][:8], queries[:8])
    np.testing.assert_array_equal(found[1::2][:8], queries[8:16])


@pytest.mark.parametrize(("weights", "error"), [("f16", 2**-11), ("q8_0", 1 / 127)])
def test_a_narrower_type_is_near(tiny_base: ModelArtifact, tmp_path: Path, weights: str, error: float) -> None:
    write_model(tiny_base.path, tmp_path / "m.gguf", weights=weights)  # type: ignore[arg-type]
    tensor = tensors(tmp_path / "m.gguf")["blk.0.ffn_up.weight"]
    wanted = load_file(tiny_base.path / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].numpy()
    found = gguf.dequantize(tensor.data, tensor.tensor_type)
    assert np.abs(found - wanted).max() <= error * np.abs(wanted).max()


def test_norms_stay_float32(tiny_base: ModelArtifact, tmp_path: Path) -> None:
    write_model(tiny_base.path, tmp_path / "m.gguf", weights="q8_0")
    assert tensors(tmp_path / "m.gguf")["output_norm.weight"].tensor_type is gguf.GGMLQuantizationType.F32


def test_an_adapter_carries_its_scaling(tiny_adapter: ModelArtifact, tmp_path: Path) -> None:
    assert tiny_adapter.base is not None
    write_adapter(tiny_adapter.path, tiny_adapter.base.path, tmp_path / "a.gguf")
    saved, written = load_file(tiny_adapter.path / "adapter_model.safetensors"), tensors(tmp_path / "a.gguf")
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    np.testing.assert_array_equal(written["blk.0.ffn_up.weight.lora_a"].data, saved[key.format("A")].numpy())
    np.testing.assert_array_equal(written["blk.0.ffn_up.weight.lora_b"].data, 2 * saved[key.format("B")].numpy())


def test_a_rank_stabilised_adapter_and_a_pattern_have_their_own_scaling(
    tiny_adapter: ModelArtifact, tmp_path: Path
) -> None:
    assert tiny_adapter.base is not None
    folder = Path(shutil.copytree(tiny_adapter.path, tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"use_rslora": True, "alpha_pattern": {"down_proj": 3}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_adapter(folder, tiny_adapter.base.path, tmp_path / "a.gguf")
    saved, written = load_file(folder / "adapter_model.safetensors"), tensors(tmp_path / "a.gguf")
    for name, inner, scaling in (("up_proj", "ffn_up", 8 / 2), ("down_proj", "ffn_down", 3 / 2)):
        wanted = scaling * saved[f"base_model.model.model.layers.0.mlp.{name}.lora_B.weight"].numpy()
        np.testing.assert_allclose(written[f"blk.0.{inner}.weight.lora_b"].data, wanted, rtol=1e-6)


@pytest.mark.parametrize("setting", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_an_adapter_of_another_kind_is_refused(
    tiny_adapter: ModelArtifact, tmp_path: Path, setting: dict[str, object]
) -> None:
    assert tiny_adapter.base is not None
    folder = Path(shutil.copytree(tiny_adapter.path, tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | setting))
    with pytest.raises(InvalidConfig, match=str(next(iter(setting.values())))):
        write_adapter(folder, tiny_adapter.base.path, tmp_path / "a.gguf")
    assert list(tmp_path.glob("*.gguf*")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gemma3"}, "gemma3"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_a_model_that_has_no_form_here_is_refused_by_name(
    tiny_base: ModelArtifact, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InvalidConfig, match=said):
        write_model(folder, tmp_path / "m.gguf", weights="f16")


def test_a_weight_of_no_llama_leaves_no_file(tiny_base: ModelArtifact, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "model"))
    saved = load_file(folder / "model.safetensors") | {"model.layers.0.router.weight": torch.zeros(2, 2)}
    save_file(saved, folder / "model.safetensors")
    with pytest.raises(InvalidConfig, match="router"):
        write_model(folder, tmp_path / "m.gguf", weights="f16")
    assert list(tmp_path.glob("*.gguf*")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pre_tokenizer": {"type": "Metaspace"}}, "Metaspace"),
        ({"normalizer": {"type": "NFKC"}}, "NFKC"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_differently_is_refused(
    tiny_base: ModelArtifact, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "model"))
    saved = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(saved | change))
    with pytest.raises(InvalidConfig, match=said):
        read_gguf_tokenizer(folder, vocabulary=259)
