from __future__ import annotations

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.model_loader import PROMPT, ModelLoaderContract
from torch import nn
from transformers import AutoModelForCausalLM

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError
from terakoya.models.cache import ModelCache
from terakoya.models.factory import create_model_loader
from terakoya.models.lora_loader import LoRAModelLoader
from terakoya.models.quantization import quantize_nf4

CPU = torch.device("cpu")


def quantized(folder: Path) -> Any:
    module = AutoModelForCausalLM.from_pretrained(folder)
    quantize_nf4(module, compute_dtype=torch.float32, device=CPU)
    return module


def ids_of(loaded: Any) -> torch.Tensor:
    return torch.tensor([loaded.tokenizer(PROMPT)["input_ids"]])


class TestQLoRAModelLoader(ModelLoaderContract):
    model_type = "qlora"

    @pytest.fixture
    def artifact(self, tiny_adapter: ModelArtifact) -> ModelArtifact:
        info = dataclasses.replace(tiny_adapter.info, card={"loader": "qlora"}, content_sha256="4" * 64)
        return dataclasses.replace(tiny_adapter, info=info)

    def test_it_gives_a_frozen_model_in_evaluation_mode(self, artifact: ModelArtifact) -> None:
        module = create_model_loader("qlora").load(artifact).module
        assert not module.training
        packed = [each for each in module.parameters() if each.dtype is torch.uint8]
        assert len(packed) == 2 * 7  # every linear layer but the head, in each of two blocks
        assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_its_base_in_bits_leaves_the_shared_one_whole(
        self, artifact: ModelArtifact, tiny_base: ModelArtifact, tiny_adapter: ModelArtifact
    ) -> None:
        cache = ModelCache(1 << 30)
        with torch.inference_mode(), cache.get_cached_model(tiny_adapter) as plain:
            expected = plain.module(ids_of(plain)).logits
        with torch.inference_mode(), cache.get_cached_model(artifact) as packed:
            in_bits = packed.module(ids_of(packed)).logits
            alone = create_model_loader("qlora").load(artifact)
            assert torch.equal(in_bits, alone.module(ids_of(alone)).logits)
        with torch.inference_mode(), cache.get_cached_model(tiny_adapter) as plain:
            assert torch.equal(plain.module(ids_of(plain)).logits, expected)
        assert not torch.allclose(in_bits, expected, atol=1e-2)

    def test_an_adapter_without_a_base_is_refused(self, artifact: ModelArtifact) -> None:
        with pytest.raises(ModelLoadError, match="has no base model"):
            create_model_loader("qlora").load(dataclasses.replace(artifact, base=None))


def test_each_linear_layer_but_the_head_multiplies_by_its_weights_in_sixteen_levels(tiny_base: ModelArtifact) -> None:
    full: Any = AutoModelForCausalLM.from_pretrained(tiny_base.path)
    packed = quantized(tiny_base.path)
    assert type(packed.lm_head) is nn.Linear
    before, after = full.model.layers[0].mlp.up_proj, packed.model.layers[0].mlp.up_proj
    seen = after(torch.eye(before.in_features)).t()  # the weight it multiplies by
    blocks = seen.reshape(-1, 64)
    assert all(len(block.unique()) <= 16 for block in blocks)
    # Levels of NF4 lie at most 0.305 of a block's largest weight apart, so half of that is the largest error.
    limit = 0.16 * before.weight.abs().reshape(-1, 64).amax(1, keepdim=True)
    assert ((blocks - before.weight.reshape(-1, 64)).abs() <= limit).all()


def test_gradients_flow_after_an_evaluation_as_before_it(tiny_base: ModelArtifact) -> None:
    module = quantized(tiny_base.path)
    ids = torch.tensor([[5, 6, 7, 8]])
    states = torch.randn(1, 4, 64, requires_grad=True)

    def gradient() -> torch.Tensor:
        states.grad = None
        module(inputs_embeds=states).logits.sum().backward()
        assert states.grad is not None
        return states.grad.clone()

    module.train()
    before = gradient()
    module.eval()
    with torch.no_grad():
        module(ids)
    module.train()
    torch.testing.assert_close(gradient(), before)


def test_a_missing_library_is_named_with_what_installs_it(
    tiny_base: ModelArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "bitsandbytes":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelLoadError, match=r"pip install terakoya\[qlora\]"):
        quantized(tiny_base.path)


def test_lora_on_a_base_in_bits_is_refused_if_it_was_made_for_another(
    tiny_base: ModelArtifact, tiny_adapter: ModelArtifact, tmp_path: Path
) -> None:
    from tests.tiny_model import build_tiny_model, tiny_artifact

    from terakoya.models.full_loader import FullModelLoader

    wider = FullModelLoader().load(tiny_artifact(build_tiny_model(tmp_path / "wider", hidden=128)))
    quantize_nf4(wider.module, compute_dtype=torch.float32, device=CPU)
    with pytest.raises(ModelLoadError, match="made for another model"):
        LoRAModelLoader().attach(wider, tiny_adapter, name="default")
