from __future__ import annotations

import pytest

from terakoya.training.defaults import ResolvedTraining, resolve
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.evaluation_plan import SHARE, plan_evaluation, spread
from terakoya.training.request import TrainingRequest


def resolved(**fields: object) -> ResolvedTraining:
    request = TrainingRequest.model_validate({"model": "m", "dataset": "d", "max_steps": 10, **fields})
    return resolve(request, parameters=100_000, rows=1000)


def steps(count: int, batch_size: int = 8) -> StepPlan:
    return StepPlan.of(rows=1000, batch_size=batch_size, seed=0, epochs=None, max_steps=count)


@pytest.mark.parametrize("count", [30, 100, 1000, 100_000])
@pytest.mark.parametrize("heldout", [[60] * 200, [400] * 5, [20] * 3 + [900] * 40])
def test_what_nobody_asked_for_adds_little(count: int, heldout: list[int]) -> None:
    plan = plan_evaluation(resolved(), steps(count), [60] * 1000, heldout)

    assert plan.share <= SHARE * 1.6, "rows are spread evenly, so their lengths may be above the mean"
    assert plan.times <= 10
    assert len(plan.rows) <= 128


def test_a_run_of_ordinary_length_is_looked_at_several_times() -> None:
    plan = plan_evaluation(resolved(), steps(120), [60] * 1000, [60] * 200)

    assert plan.times >= 8
    assert len(plan.rows) >= 8
    assert plan.share <= SHARE
    assert plan.is_due(120), "the last step always"
    assert not plan.is_due(0)


def test_a_very_short_run_is_not_looked_at_unless_asked() -> None:
    assert plan_evaluation(resolved(), steps(3), [60] * 1000, [60] * 200).every == 0
    asked = plan_evaluation(resolved(evaluation={"every_steps": 2}), steps(3), [60] * 1000, [60] * 200)
    assert [step for step in range(4) if asked.is_due(step)] == [2, 3]
    assert len(asked.rows) == 8


def test_what_was_asked_for_is_taken_whatever_it_costs() -> None:
    asked = resolved(evaluation={"every_fraction": 0.1, "during_examples": 50})

    plan = plan_evaluation(asked, steps(20), [60] * 1000, [60] * 200)

    assert (plan.every, len(plan.rows)) == (2, 50)
    assert plan.share == pytest.approx(10 * 50 * 0.5 / (20 * 8))


def test_early_stopping_has_evaluations_to_go_by_in_any_run() -> None:
    plan = plan_evaluation(resolved(early_stopping={}), steps(5), [60] * 1000, [60] * 200)

    assert plan.every == 1


def test_without_held_out_rows_there_is_nothing_to_score() -> None:
    assert plan_evaluation(resolved(evaluation={"every_steps": 1}), steps(5), [60], []).every == 0


def test_rows_are_spread_over_the_whole_file() -> None:
    assert spread(10, 3) == (0, 3, 6)
    assert spread(2, 5) == (0, 1)
