from __future__ import annotations

import pytest

from terakoya.training.engine.batching import StepPlan, micro_batches


def plan(**changes: int | None) -> StepPlan:
    fields: dict[str, int | None] = {"rows": 10, "batch_size": 4, "seed": 7, "epochs": 2, "max_steps": None}
    return StepPlan.of(**fields | changes)  # type: ignore[arg-type]


def test_an_epoch_takes_every_row_once_and_its_last_step_what_is_left() -> None:
    each = plan()
    assert each.total_steps == 6
    first_epoch = [each.rows_of(step) for step in (1, 2, 3)]
    assert [len(rows) for rows in first_epoch] == [4, 4, 2]
    assert sorted(row for rows in first_epoch for row in rows) == list(range(10))
    assert [step for step in range(1, 7) if each.ends_epoch(step)] == [3, 6]


def test_order_follows_from_seed_and_epoch_alone() -> None:
    assert plan().rows_of(5) == plan().rows_of(5)
    assert plan().rows_of(1) != plan().rows_of(4)
    assert plan().rows_of(1) != plan(seed=8).rows_of(1)


def test_max_steps_may_end_within_an_epoch_or_go_on_over_several() -> None:
    assert plan(epochs=None, max_steps=2).total_steps == 2
    assert len(plan(epochs=None, max_steps=100).rows_of(99)) == 2


def test_micro_batches_keep_to_the_budget_and_lose_no_row() -> None:
    lengths = [30, 8, 21, 13, 8, 40, 9]
    batches = micro_batches(range(7), lengths, shared=5, budget_tokens=60)
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert all(5 + sum(lengths[row] - 5 for row in batch) <= 60 for batch in batches)
    flat = [lengths[row] for batch in batches for row in batch]
    assert flat == sorted(flat, reverse=True)


def test_what_fits_at_once_is_not_cut() -> None:
    assert micro_batches([2, 0, 1], [10, 20, 30], shared=0, budget_tokens=60) == [[2, 1, 0]]


def test_work_is_spread_over_the_micro_batches_that_are_needed() -> None:
    batches = micro_batches(range(8), [10] * 8, shared=0, budget_tokens=70)
    assert [len(batch) for batch in batches] == [4, 4]


@pytest.mark.parametrize("budget", [1, 25])
def test_a_row_longer_than_the_budget_stands_alone(budget: int) -> None:
    assert micro_batches([0, 1], [26, 30], shared=0, budget_tokens=budget) == [[1], [0]]
