from __future__ import annotations

import json

import pytest

from terakoya.domain.datasets import DatasetKind
from terakoya.exceptions import InvalidConfig
from terakoya.training.defaults import ResolvedTraining, default_epochs, default_learning_rate, resolve
from terakoya.training.request import TrainingRequest


def resolved(**fields: object) -> ResolvedTraining:
    request = TrainingRequest.model_validate({"model": "starter", "dataset": "inbox"} | fields)
    return resolve(request, parameters=134_515_008, rows=1000)


def test_a_small_model_learns_faster_than_a_large_one() -> None:
    rates = [
        default_learning_rate("lora", parameters)
        for parameters in (135_000_000, 500_000_000, 1_700_000_000, 8_000_000_000)
    ]
    assert rates == [1e-3, 5e-4, 2e-4, 1e-4]


def test_full_fine_tuning_takes_smaller_steps() -> None:
    assert default_learning_rate("full", 135_000_000) == pytest.approx(1e-4)


def test_few_rows_are_repeated_up_to_ten_times() -> None:
    assert [default_epochs(rows, 8) for rows in (1000, 400, 200, 10, 1)] == [2, 5, 10, 10, 10]


def test_alpha_is_twice_the_rank_unless_given() -> None:
    default, ranked, scaled = resolved(), resolved(adapter={"rank": 8}), resolved(adapter={"rank": 8, "alpha": 8})
    assert [(each.adapter.rank, each.adapter.alpha) for each in (default, ranked, scaled) if each.adapter] == [
        (16, 32.0),
        (8, 16.0),
        (8, 8.0),
    ]


def test_what_is_asked_is_kept() -> None:
    asked = resolved(epochs=3, learning_rate=5e-4, batch_size=2, max_length=64, seed=5)
    assert (asked.epochs, asked.learning_rate, asked.batch_size, asked.max_length, asked.seed) == (3, 5e-4, 2, 64, 5)


def test_max_steps_replaces_epochs() -> None:
    asked = resolved(max_steps=7)
    assert (asked.epochs, asked.max_steps) == (None, 7)


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="epochs=1 and max_steps=7 contradict"):
        resolved(epochs=1, max_steps=7)
    with pytest.raises(InvalidConfig, match="trains every weight and takes no 'adapter'"):
        resolved(strategy="full", adapter={"rank": 4})


@pytest.mark.parametrize("fields", [{}, {"strategy": "full"}, {"adapter": {"targets": ["q_proj", "v_proj"]}}])
def test_it_survives_being_stored(fields: dict[str, object]) -> None:
    each = resolved(**fields)
    stored = json.loads(json.dumps(each.to_json() | {"model": "model_x"}))
    assert ResolvedTraining.from_json(stored) == each


def of_kind(kind: DatasetKind, **fields: object) -> ResolvedTraining:
    request = TrainingRequest.model_validate({"model": "starter", "dataset": "inbox"} | fields)
    return resolve(request, parameters=134_515_008, rows=1000, kind=kind)


def test_what_is_learned_follows_from_the_data_unless_named() -> None:
    assert [of_kind(kind).objective for kind in DatasetKind] == ["supervised", "text", "dpo"]
    assert of_kind(DatasetKind.PREFERENCE, objective="supervised").objective == "supervised"
    assert of_kind(DatasetKind.PREFERENCE, objective="orpo").objective_settings == {"beta": 0.1}


@pytest.mark.parametrize(
    ("kind", "objective", "there_is"),
    [
        (
            DatasetKind.CONVERSATION,
            "dpo",
            "learns from preference rows, and the dataset's are conversation rows",
        ),
        (DatasetKind.CONVERSATION, "text", "learns from text rows"),
        (DatasetKind.TEXT, "supervised", "learns from conversation or preference rows.*there is 'text'"),
        (DatasetKind.PREFERENCE, "text", "there is 'dpo', 'orpo', 'supervised'"),
    ],
)
def test_an_objective_for_other_data_is_refused_with_what_fits(
    kind: DatasetKind, objective: str, there_is: str
) -> None:
    with pytest.raises(InvalidConfig, match=there_is):
        of_kind(kind, objective=objective)


def test_pairs_are_compared_whole() -> None:
    with pytest.raises(InvalidConfig, match="'dpo' compares whole answers, which long_rows='split' would cut"):
        of_kind(DatasetKind.PREFERENCE, long_rows="split")
    assert of_kind(DatasetKind.PREFERENCE, long_rows="drop").long_rows == "drop"


def test_preferences_take_smaller_steps_than_answers() -> None:
    assert of_kind(DatasetKind.PREFERENCE).learning_rate == pytest.approx(1e-4)
    assert of_kind(DatasetKind.PREFERENCE, objective="orpo").learning_rate == pytest.approx(5e-4)


def test_adapter_kinds_resolve_to_what_they_mean() -> None:
    kinds = {kind: resolved(adapter={"kind": kind, "rank": 64}).adapter for kind in ("lora", "rslora", "dora", "qlora")}
    assert {kind: (each.alpha, each.quantization) for kind, each in kinds.items() if each} == {
        "lora": (128.0, None),
        "rslora": (8.0, None),
        "dora": (128.0, None),
        "qlora": (128.0, "nf4"),
    }


def test_a_run_stored_before_there_were_objectives_reads_back() -> None:
    stored = resolved().to_json()
    del stored["objective_settings"], stored["adapter"]["quantization"]
    assert ResolvedTraining.from_json(stored) == resolved()
