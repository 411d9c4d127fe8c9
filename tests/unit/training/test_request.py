from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from terakoya.training.request import TrainingRequest


def errors_of(**fields: Any) -> dict[str, str]:
    """Return the message of each refused field by its dotted name."""
    with pytest.raises(ValidationError) as caught:
        TrainingRequest(**{"model": "starter", "dataset": "inbox"} | fields)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def test_model_and_dataset_suffice() -> None:
    request = TrainingRequest(model="starter", dataset="inbox")
    assert request.strategy == "lora"
    assert request.seed == 0


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank"),
        ({"adapter": {"dropout": 1.0}}, "adapter.dropout"),
        ({"adapter": {"kind": "prefix"}}, "adapter.kind"),
        ({"adapter": {"bias": "all"}}, "adapter.bias"),
        ({"learning_rate": "abc"}, "learning_rate"),
        ({"learning_rate": -1e-3}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"max_steps": -1}, "max_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_length": 1}, "max_length"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"model": ""}, "model"),
        ({"objective": "preference"}, "objective"),
        ({"schedule": {"kind": "sawtooth"}}, "schedule.kind"),
        ({"schedule": {"warmup": 0.9}}, "schedule.warmup"),
        ({"evaluation": {"heldout_fraction": 0}}, "evaluation.heldout_fraction"),
        ({"learningrate": 1e-3}, "learningrate"),
        ({"base": "adapter"}, "base"),
        ({"after": ""}, "after"),
        ({"retention": {"budget": 0}}, "retention.budget"),
        ({"retention": {"budget": -0.1}}, "retention.budget"),
        ({"retention": {"lambda": 1}}, "retention.lambda"),
        ({"retention": {"regulariser": {"strength": -1}}}, "retention.regulariser.strength"),
        ({"retention": {"regulariser": {"gamma": 0}}}, "retention.regulariser.gamma"),
        ({"retention": {"regulariser": {"sequences": 0}}}, "retention.regulariser.sequences"),
        ({"retention": {"replay": {"share": 1.5}}}, "retention.replay.share"),
        ({"retention": {"replay": {"mix": 1}}}, "retention.replay.mix"),
        ({"retention": {"replay": {"top_k": 0}}}, "retention.replay.top_k"),
        ({"retention": {"replay": {"max_megabytes": 0}}}, "retention.replay.max_megabytes"),
    ],
)
def test_each_bad_value_is_refused_under_its_field(fields: dict[str, Any], refused: str) -> None:
    assert list(errors_of(**fields)) == [refused]


def test_an_unknown_strategy_is_told_which_there_are() -> None:
    assert "unknown strategy 'l2'; available: ewc, full, lora" in errors_of(strategy="l2")["strategy"]


@pytest.mark.parametrize(
    ("field", "value"), [("base", "lora"), ("retention", {}), ("after", "earlier")], ids=["base", "retention", "after"]
)
def test_what_belongs_to_a_chain_is_refused_beside_another_strategy(field: str, value: Any) -> None:
    assert f"'{field}' belongs to strategy 'ewc'" in errors_of(**{field: value})[""]
    assert TrainingRequest.model_validate({"model": "m", "dataset": "d", "strategy": "ewc", field: value})


def test_what_the_tables_do_not_know_is_refused_with_what_they_do() -> None:
    refused = errors_of(objective="grpo", adapter={"kind": "vera", "quantization": "4bit"})
    assert "available: dpo, orpo, supervised, text" in refused["objective"]
    assert "available: dora, lora, qlora, rslora" in refused["adapter.kind"]
    assert "should be 'nf4'" in refused["adapter.quantization"]
