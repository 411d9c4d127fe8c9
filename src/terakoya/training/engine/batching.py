"""Which rows make up each optimizer step, and how a step is cut into micro-batches that fit into memory.

Pure: the answer depends on lengths, seed and step number alone, so a resumed run sees the same rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_LANE_TOKENS = 96
"""Fewer in a lane are not worth one: the products of so few read the weights more than they compute."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    rows: int
    batch_size: int
    """Rows per optimizer step; the last step of an epoch takes what is left."""
    seed: int
    total_steps: int

    @classmethod
    def of(cls, *, rows: int, batch_size: int, seed: int, epochs: int | None, max_steps: int | None) -> StepPlan:
        """Of ``epochs`` and ``max_steps`` exactly one is given."""
        per_epoch = math.ceil(rows / batch_size)
        return cls(rows, batch_size, seed, max_steps if epochs is None else epochs * per_epoch)  # type: ignore[arg-type]

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch_size)

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def tokens(self, lengths: Sequence[int]) -> int:
        """Return how many tokens all steps have together, rows being of these ``lengths``."""
        epochs, steps = divmod(self.total_steps, self.steps_per_epoch)
        begun = range(epochs * self.steps_per_epoch + 1, epochs * self.steps_per_epoch + steps + 1)
        return epochs * sum(lengths) + sum(lengths[row] for step in begun for row in self.rows_of(step))

    def rows_of(self, step: int) -> list[int]:
        """Return the row indices of a step, counted from 1, in the order their epoch was shuffled."""
        epoch, index = divmod(step - 1, self.steps_per_epoch)
        order = _order(self.rows, self.seed, epoch)
        return list(order[index * self.batch_size : (index + 1) * self.batch_size])


@lru_cache(maxsize=1)
def _order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """An epoch's order, kept while the epoch lasts: shuffling millions of rows takes seconds."""
    order = list(range(rows))
    random.Random(f"{seed}:{epoch}").shuffle(order)  # noqa: S311 - reproducible, not secret
    return tuple(order)


def micro_batches(rows: Sequence[int], lengths: Sequence[int], *, shared: int, budget_tokens: int) -> list[list[int]]:
    """Cut a step's rows, longest first, into micro-batches of about equal size and at most ``budget_tokens`` each.

    ``shared`` tokens at the start of every row are computed once per micro-batch. A row longer than the budget
    stands alone: whether that is allowed was decided when the budget was chosen.
    """
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    own = [lengths[row] - shared for row in ordered]
    room = max(budget_tokens - shared, 1)
    share = math.ceil(sum(own) / math.ceil(sum(own) / room))
    batches: list[list[int]] = []
    filled = 0
    for row, tokens in zip(ordered, own, strict=True):
        if not batches or filled + tokens > room or filled >= share:
            batches.append([])
            filled = 0
        batches[-1].append(row)
        filled += tokens
    return batches


def lane_count(*, threads: int, tokens_per_step: float) -> int:
    """Return into how many lanes the threads of a processor go for steps of so many tokens."""
    return max(min(threads, int(tokens_per_step // _LANE_TOKENS)), 1)


def lanes_of(rows: Sequence[int], lengths: Sequence[int], *, count: int) -> list[list[int]]:
    """Split a micro-batch into at most ``count`` parts of about equal size, the longest row to the emptiest part."""
    parts: list[list[int]] = [[] for _ in range(min(count, len(rows)))]
    filled = [0] * len(parts)
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        emptiest = filled.index(min(filled))
        parts[emptiest].append(row)
        filled[emptiest] += lengths[row]
    return parts
