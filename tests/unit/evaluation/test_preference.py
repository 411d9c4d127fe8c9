from __future__ import annotations

from typing import Any

import pytest

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.heldout import HeldoutScores
from terakoya.evaluation.preference import preference_figures, to_json
from terakoya.evaluation.report_card import build_report
from terakoya.evaluation.statistics import mcnemar_p, wilson_interval

PAIRS = 8


def scores(better: float, worse: list[float]) -> HeldoutScores:
    """Better answers of two tokens, worse ones of four, with these losses in sum."""
    return HeldoutScores(
        [better] * PAIRS, [2] * PAIRS, [False] * PAIRS, [None] * PAIRS, [False] * PAIRS, worse, [4] * PAIRS
    )


# Per token the better answer has 1.0: before, two of eight worse ones are unlikelier than that; after, all are.
BEFORE = scores(2.0, [3.0] * 6 + [5.0] * 2)
AFTER = scores(2.0, [6.0] * 8)


def report(before: HeldoutScores, after: HeldoutScores) -> dict[str, Any]:
    encoded = [EncodedExample(n, [1, 2], ((1, 2),), "ask", f"answer {n}") for n in range(PAIRS)]
    given: dict[str, Any] = {"model": {}, "dataset": {}, "strategy": "lora", "cost": {}, "configuration": {}}
    return build_report(before, after, encoded, canaries=[], **given)


def test_a_pair_is_right_when_its_better_answer_is_likelier_token_for_token() -> None:
    figures = preference_figures(BEFORE, AFTER, seed=0)
    accuracy = figures["preference_accuracy"]
    assert accuracy["before"] == wilson_interval(2, 8)
    assert accuracy["after"] == wilson_interval(8, 8)
    assert accuracy["difference"].value == pytest.approx(0.75)
    assert figures["preference_p"] == mcnemar_p(6, 0)


def test_the_margin_is_in_nats_per_token() -> None:
    margin = preference_figures(BEFORE, AFTER, seed=0)["preference_margin"]
    assert margin["before"].value == pytest.approx((6 * (0.75 - 1) + 2 * (1.25 - 1)) / 8)
    assert margin["after"].value == pytest.approx(0.5)


def test_pairs_moved_right_count_whole_answers_against_before() -> None:
    assert preference_figures(BEFORE, AFTER, seed=0)["moved_right"] == wilson_interval(8, 8)
    assert preference_figures(AFTER, BEFORE, seed=0)["moved_right"] == wilson_interval(0, 8)


def test_the_verdict_on_pairs_is_by_their_accuracy() -> None:
    card = report(BEFORE, AFTER)
    assert (card["verdict"]["code"], card["verdict"]["metric"]) == ("better", "preference_accuracy")
    assert card["verdict"]["text"].startswith(
        "Better. Preference accuracy on 8 held-out examples went from 25.0% to 100"
    )
    assert (
        card["heldout"]["preference_accuracy"]
        == to_json({"preference_accuracy": preference_figures(BEFORE, AFTER, seed=0)["preference_accuracy"]})[
            "preference_accuracy"
        ]
    )
    assert report(AFTER, BEFORE)["verdict"]["code"] == "worse"


def test_of_running_text_only_the_loss_is_told() -> None:
    before, after = (HeldoutScores([loss] * PAIRS, [10] * PAIRS, [], [], []) for loss in (30.0, 20.0))
    card = report(before, after)
    assert card["heldout"]["exact_match"] is card["heldout"]["mcnemar_p"] is card["heldout"]["answers"] is None
    assert card["heldout"]["loss"]["after"]["value"] == pytest.approx(2.0)
    assert (card["verdict"]["code"], card["verdict"]["metric"]) == ("better", "loss")
    assert card["examples"] == []
    assert "preference_accuracy" not in card["heldout"]
