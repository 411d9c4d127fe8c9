from __future__ import annotations

import pytest
import torch

from terakoya.domain.models import ModelArtifact
from terakoya.models.base_loader import LoadedModel
from terakoya.models.full_loader import FullModelLoader
from terakoya.models.row_batch import RowBatch

PROMPTS = [[1, 50, 60, 70], [1, 9], list(range(30, 120))]


@pytest.fixture(scope="module")
def loaded(tiny_base: ModelArtifact) -> LoadedModel:
    return FullModelLoader().load(tiny_base)


def by_hand(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    """All of it computed anew, without a cache."""
    with torch.inference_mode():
        logits: torch.Tensor = loaded.module(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


def test_rows_that_come_and_go_are_each_computed_as_alone(loaded: LoadedModel) -> None:
    batch = RowBatch(loaded.module)
    texts: list[list[int]] = []

    def check(found: torch.Tensor) -> None:
        for text, logits in zip(texts, found, strict=True):
            assert torch.allclose(logits, by_hand(loaded, text), atol=1e-4)

    def join(prompt: list[int]) -> None:
        texts.append(list(prompt))
        assert torch.allclose(batch.join(prompt), by_hand(loaded, prompt), atol=1e-4)

    def step(times: int) -> None:
        for number in range(times):
            tokens = [5 + (7 * number + place) % 200 for place in range(len(texts))]
            for text, token in zip(texts, tokens, strict=True):
                text.append(token)
            check(batch.step(tokens))

    def keep(rows: list[int]) -> None:
        texts[:] = [texts[row] for row in rows]
        batch.keep(rows)

    join(PROMPTS[0])
    step(2)
    join(PROMPTS[1])  # shorter than what is there
    join(PROMPTS[2])  # longer
    step(70)  # beyond the room that was left
    keep([0, 1])
    assert batch.length == len(texts[0])  # what only the long one needed is gone
    step(3)
    join(PROMPTS[2])
    keep([2])
    step(2)
    keep([])
    assert (batch.count, batch.length) == (0, 0)
    join(PROMPTS[1])
    step(2)
