from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.tiny_model import build_tiny_adapter, tiny_artifact
from transformers import OPTConfig, OPTForCausalLM

from terakoya.domain.models import ModelArtifact
from terakoya.models.base_loader import LoadedModel
from terakoya.models.full_loader import FullModelLoader
from terakoya.models.lora_loader import LoRAModelLoader
from terakoya.models.mixed_adapters import MixedAdapters

IDS = torch.tensor([[1, 50, 60, 70, 9]])
COUNT = 6


@pytest.fixture(scope="module")
def mixed(tiny_base: ModelArtifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, MixedAdapters]:
    folder = tmp_path_factory.mktemp("adapters")
    loaded, mixed = FullModelLoader().load(tiny_base), MixedAdapters()
    for number in range(COUNT):
        path = build_tiny_adapter(folder / f"a{number}", tiny_base.path, rank=2 + number, seed=number)
        loaded = LoRAModelLoader().attach(loaded, tiny_artifact(path, base=tiny_base), name=f"a{number}")
        mixed.pack(loaded.module)
    return loaded, mixed


def by_peft(loaded: LoadedModel, mixed: MixedAdapters, name: str | None) -> torch.Tensor:
    LoRAModelLoader().activate(loaded, name=name)
    mixed.use(())
    return run(loaded, IDS)


def run(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    module: Any = loaded.module
    with torch.inference_mode():
        logits: torch.Tensor = module(input_ids=ids).logits
    return logits


@pytest.mark.parametrize(
    "rows",
    [
        ["a0", "a1", "a2", "a3", "a4", "a5"],  # all at work: two products and a mask
        ["a3", None, "a4", "a5", "a3"],  # some, next to each other, and the base
        ["a0", "a5"],  # few: each apart
        ["a0", "a2", "a5", None],  # more than a few
        [None, None],
        ["a1", "a1"],
    ],
)
def test_each_row_gets_what_peft_would_give_it_alone(
    mixed: tuple[LoadedModel, MixedAdapters], rows: list[str | None]
) -> None:
    loaded, adapters = mixed
    expected = torch.cat([by_peft(loaded, adapters, name) for name in rows])
    LoRAModelLoader().activate(loaded, name=None)
    adapters.use(rows)
    assert torch.allclose(run(loaded, IDS.expand(len(rows), -1)), expected, atol=1e-4)


def test_adapters_that_leave_change_nothing_for_the_others(
    mixed: tuple[LoadedModel, MixedAdapters],
) -> None:
    loaded, adapters = mixed
    expected = by_peft(loaded, adapters, "a4")
    loaded = LoRAModelLoader().detach(loaded, name="a2")
    adapters.pack(loaded.module)
    LoRAModelLoader().activate(loaded, name=None)
    adapters.use(["a4"])
    assert torch.allclose(run(loaded, IDS), expected, atol=1e-4)


def test_layers_that_lay_the_rows_end_to_end_tell_them_apart(tiny_base: ModelArtifact) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=128, num_hidden_layers=1, max_position_embeddings=32, dropout=0.0, **sizes)
    lora = LoraConfig(r=2, target_modules=["fc1", "fc2"], init_lora_weights=False)
    module = get_peft_model(OPTForCausalLM(config), lora, adapter_name="one").eval()
    module.add_adapter("two", lora)
    loaded, adapters = LoadedModel(module, None, tiny_base), MixedAdapters()
    adapters.pack(module)
    expected = torch.cat([by_peft(loaded, adapters, name) for name in ("one", "two")])
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    LoRAModelLoader().activate(loaded, name=None)
    for rows in (["one", "two"], ["one"]):
        adapters.use(rows)
        assert torch.allclose(run(loaded, IDS.expand(len(rows), -1)), expected[: len(rows)], atol=1e-5)


def test_an_adapter_that_is_no_number_is_never_computed_beside_others(tiny_base: ModelArtifact, tmp_path: Path) -> None:
    path = build_tiny_adapter(tmp_path / "a", tiny_base.path, rank=2, seed=0)
    loaded = LoRAModelLoader().attach(FullModelLoader().load(tiny_base), tiny_artifact(path, base=tiny_base), name="a")
    assert MixedAdapters().can_mix(loaded.module, "a")
    for name, parameter in loaded.module.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(float("nan"))
    assert not MixedAdapters().can_mix(loaded.module, "a")
