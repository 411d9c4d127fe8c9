"""Cuts rows into batches of like lengths under a budget of tokens. Pure; knows nothing of what the rows hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def length_batches(lengths: Sequence[int], budget_tokens: int) -> Iterator[list[int]]:
    """Yield positions, longest first, so many that the longest times their number stays in the budget, one at least."""
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    start = 0
    while start < len(order):
        rows = max(1, budget_tokens // lengths[order[start]])
        yield order[start : start + rows]
        start += rows
