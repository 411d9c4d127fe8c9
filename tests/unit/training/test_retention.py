from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from pydantic import ValidationError

from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import ResolvedTraining, resolve
from terakoya.training.recipe import recipe_fields
from terakoya.training.request import TrainingRequest
from terakoya.training.retention import DEFAULT_BUDGET, ResolvedRetention, link_name


def resolved(**fields: Any) -> ResolvedTraining:
    request = TrainingRequest.model_validate({"model": "m", "dataset": "d", "strategy": "ewc"} | fields)
    return resolve(request, parameters=135_000_000, rows=100)


def retention(**fields: Any) -> ResolvedRetention:
    found = resolved(retention=fields).retention
    assert found is not None
    return found


def test_the_default_is_soft_replay_with_a_budget() -> None:
    found = resolved().retention
    assert found is not None
    assert (found.budget, found.strength, found.gamma) == (DEFAULT_BUDGET, None, 1.0)
    assert (found.replay_share, found.soft_targets) == (0.05, True)
    assert resolved().base == "lora"
    assert resolved().adapter is not None


def test_full_training_has_no_adapter_and_its_own_learning_rate() -> None:
    full = resolved(base="full")
    assert full.adapter is None
    assert full.learning_rate < resolved().learning_rate
    with pytest.raises(InvalidConfig, match="base 'full' trains every weight"):
        resolved(base="full", adapter={"rank": 4})


def test_what_a_penalty_on_the_update_cannot_protect_is_refused() -> None:
    for adapter in ({"kind": "dora"}, {"kind": "qlora"}, {"quantization": "nf4"}):
        with pytest.raises(InvalidConfig, match="lora or rslora"):
            resolved(adapter=adapter)
    pairs = TrainingRequest.model_validate({"model": "m", "dataset": "d", "strategy": "ewc", "objective": "dpo"})
    with pytest.raises(InvalidConfig, match="'dpo' compares 2"):
        resolve(pairs, parameters=135_000_000, rows=100, kind=DatasetKind.PREFERENCE)
    assert resolved(adapter={"kind": "rslora"}).adapter is not None


def test_a_fixed_lambda_takes_the_place_of_a_budget() -> None:
    assert (retention(regulariser={"strength": 5}).strength, retention(regulariser={"strength": 5}).budget) == (5, None)
    with pytest.raises(InvalidConfig, match="contradict each other"):
        retention(regulariser={"strength": 5}, budget=0.1)


def test_keeping_no_old_data_needs_a_fixed_lambda_and_no_soft_targets() -> None:
    with pytest.raises(InvalidConfig, match="give a fixed lambda"):
        retention(replay={"share": 0})
    with pytest.raises(InvalidConfig, match="leave soft_targets out"):
        retention(replay={"share": 0, "soft_targets": True}, regulariser={"strength": 1})
    with pytest.raises(InvalidConfig, match="leave mix out"):
        retention(replay={"share": 0, "mix": 0.5}, regulariser={"strength": 1})
    alone = retention(replay={"share": 0}, regulariser={"strength": 1})
    assert (alone.replay_mix, alone.soft_targets) == (0.0, False)


def test_other_strategies_have_no_retention_and_stored_runs_without_it_are_read() -> None:
    plain = resolved(strategy="lora")
    assert (plain.base, plain.retention) == (None, None)
    stored = plain.to_json()
    del stored["retention"], stored["base"]
    assert ResolvedTraining.from_json(stored) == plain
    assert ResolvedTraining.from_json(resolved().to_json()) == resolved()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"retention": {"regulariser": {"strength": 2, "gamma": 0.5}, "replay": {"share": 0}}},
        {"base": "full", "retention": {"budget": 0.2, "replay": {"share": 0.1, "soft_targets": False}}},
    ],
)
def test_a_recipe_gives_the_same_retention_again(fields: dict[str, Any]) -> None:
    request = TrainingRequest.model_validate({"model": "m", "dataset": "d", "strategy": "ewc"} | fields)
    found = resolve(request, parameters=135_000_000, rows=100)
    again = TrainingRequest.model_validate(recipe_fields(request, found, model="m", dataset="d"))
    assert resolve(again, parameters=135_000_000, rows=100) == found


def test_a_link_is_named_readably_and_for_its_run_alone() -> None:
    assert link_name("Mail, sorted!", "task_0123456789abcdefghjkmnpqrs") == "mail-sorted-ghjkmnpqrs"
    assert link_name("メール", "task_0123456789abcdefghjkmnpqrs") == "task-ghjkmnpqrs"
    assert len(link_name("x" * 100, "task_0123456789abcdefghjkmnpqrs")) <= 63


def test_rows_the_model_writes_itself_stand_in_for_kept_ones() -> None:
    found = retention(replay={"share": 0, "generate": 32})
    assert (found.generated_rows, found.replay_share, found.soft_targets) == (32, 0, False)
    assert (found.budget, found.replay_mix) == (DEFAULT_BUDGET, 0.25)
    assert retention(**found.as_request()) == found
    with pytest.raises(InvalidConfig, match="leave mix out"):
        retention(regulariser={"strength": 1}, replay={"share": 0, "mix": 0.5})


def test_a_budget_for_general_text_steers_lambda_and_so_does_not_go_with_a_fixed_one() -> None:
    assert retention(general_budget=0.1).general_budget == 0.1
    assert retention(**retention(general_budget=0.1).as_request()).general_budget == 0.1
    with pytest.raises(InvalidConfig, match="fixes it"):
        retention(general_budget=0.1, regulariser={"strength": 1})


@pytest.mark.parametrize("field", ["budget", "general_budget"])
@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf")])
def test_a_budget_of_nothing_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        retention(**{field: value})


def test_what_an_earlier_version_stored_is_read_back() -> None:
    fields = asdict(retention())
    del fields["general_budget"], fields["generated_rows"]
    assert ResolvedRetention.from_json(fields) == retention()
