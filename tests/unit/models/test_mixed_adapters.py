from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny_model import build_tiny_adapter, tiny_artifact

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
