from __future__ import annotations

from terakoya.models.length_batches import length_batches


def test_batches_hold_every_text_once_longest_first_within_the_budget() -> None:
    lengths = [5, 100, 7, 30, 30, 30, 2, 250]
    batches = list(length_batches(lengths, 100))
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 100 for batch in batches)
    assert list(length_batches([], 100)) == []
