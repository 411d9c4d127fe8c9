from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.heldout import HeldoutScores, text_sample
from terakoya.evaluation.report_card import MAX_EXAMPLES, before_key, build_report


def scores(
    exact: list[bool], loss: float = 1.0, labels: int = 3, unread: frozenset[int] = frozenset()
) -> HeldoutScores:
    """Losses that differ a little from example to example."""
    count = len(exact)
    return HeldoutScores(
        loss_sums=[labels * (loss + 0.01 * (n % 5)) for n in range(count)],
        label_counts=[labels] * count,
        exact=exact,
        predictions=[None if n in unread else f"said {n}" for n in range(count)],
        cut=[False] * count,
    )


def encoded(count: int) -> list[EncodedExample]:
    return [EncodedExample(n + 1, [1, 2], ((1, 2),), f"prompt {n}", f"answer {n}") for n in range(count)]


def report(
    before: HeldoutScores,
    after: HeldoutScores,
    rows: list[EncodedExample] | None = None,
    canaries: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    return build_report(
        before,
        after,
        rows or encoded(len(before.exact)),
        canaries=canaries,
        model={"name": "m"},
        dataset={"name": "d"},
        strategy="lora",
        cost={"seconds": 3.0},
        configuration={"rank": 16},
    )


def test_a_run_that_learned_is_better_by_exact_match_and_says_the_figures() -> None:
    card = report(scores([False] * 300), scores([True] * 285 + [False] * 15, loss=0.1))

    assert card["heldout"]["examples"] == 300
    assert card["heldout"]["exact_match"]["after"]["value"] == 0.95
    assert card["heldout"]["exact_match"]["difference"]["low"] > 0.9
    assert card["heldout"]["loss"]["difference"]["value"] == pytest.approx(-0.9)
    assert card["flips"] == {"gained": 285, "lost": 0}
    assert card["verdict"]["code"] == "better"
    assert card["verdict"]["metric"] == "exact_match"
    assert card["verdict"]["text"] == (
        "Better. Exact match on 300 held-out examples went from 0.0% to 95.0%: "
        "a difference of +91.7 to +96.9 points with 95% confidence."
    )
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_a_run_that_forgot_is_worse() -> None:
    card = report(scores([True] * 50), scores([True] * 20 + [False] * 30))

    assert (card["verdict"]["code"], card["flips"]) == ("worse", {"gained": 0, "lost": 30})


@pytest.mark.parametrize(("gained", "total"), [(0, 50), (2, 50), (3, 3)])
def test_few_flips_are_no_clear_difference_even_if_all_are_gains(gained: int, total: int) -> None:
    card = report(scores([True] + [False] * total), scores([True] * (1 + gained) + [False] * (total - gained)))

    assert card["verdict"]["code"] == "no_clear_difference"


def test_long_answers_are_judged_by_loss_where_less_is_better() -> None:
    same = [False] * 40
    better = report(scores(same, loss=2.0, labels=100), scores(same, loss=1.5, labels=100))["verdict"]
    worse = report(scores(same, loss=1.5, labels=100), scores(same, loss=2.0, labels=100))["verdict"]

    assert (better["metric"], better["code"], worse["code"]) == ("loss", "better", "worse")
    assert better["text"].startswith("Better. Loss per token on 40 held-out examples went from 2.020 to 1.520:")


def test_short_answers_of_which_none_was_ever_right_are_judged_by_loss() -> None:
    card = report(scores([False] * 40, loss=2.0), scores([False] * 40, loss=1.5))

    assert (card["verdict"]["metric"], card["verdict"]["code"]) == ("loss", "better")


def test_one_example_is_too_few_and_says_so() -> None:
    card = report(scores([False], loss=2.0), scores([False], loss=1.0))

    assert card["heldout"]["loss"]["difference"] == {"value": -1.0, "low": None, "high": None}
    assert card["verdict"]["code"] == "no_clear_difference"
    assert "1 held-out example went from 2.000 to 1.000: too few for an interval" in card["verdict"]["text"]


def test_the_examples_show_flips_first_with_room_for_what_is_still_wrong() -> None:
    before = scores([False] * 100 + [True] * 5 + [True] * 50, unread=frozenset(range(30, 100)))
    after = scores([True] * 80 + [False] * 20 + [False] * 5 + [True] * 50)

    examples = report(before, after)["examples"]

    kinds = [(each["before_exact"], each["after_exact"]) for each in examples]
    assert len(examples) == MAX_EXAMPLES
    assert kinds[:40] == [(True, False)] * 5 + [(False, True)] * 35
    assert kinds[40:] == [(False, False)] * 10
    assert all(each["before"] is not None for each in examples[5:35]), "what can be read comes first"
    assert examples[0] == {
        "row": 101,
        "prompt": "prompt 100",
        "reference": "answer 100",
        "before": "said 100",
        "after": "said 100",
        "before_exact": True,
        "after_exact": False,
        "before_cut": False,
        "after_cut": False,
    }


def test_the_cache_key_follows_model_data_and_settings_but_not_their_order() -> None:
    key = before_key("m", "d", {"seed": 1, "max_new_tokens": 8})

    assert key == before_key("m", "d", {"max_new_tokens": 8, "seed": 1})
    assert len({key, before_key("x", "d", {}), before_key("m", "x", {}), before_key("m", "d", {"seed": 2})}) == 4


def text_rows(count: int) -> list[EncodedExample]:
    return [
        EncodedExample(n, list(range(60)), ((10, 60),), "tell", f"the story of cat number {n}") for n in range(count)
    ]


def test_texts_are_scored_by_how_near_they_come_on_a_fair_sample() -> None:
    rows = text_rows(200)
    sample = text_sample(rows)
    said = {
        side: [f"{side} {n}" if n in sample else None for n in range(200)]
        for side in ("a dog", "the story of cat number")
    }
    old, new = (
        HeldoutScores([50.0 + n % 3] * 200, [50] * 200, [False] * 200, list(answers), [False] * 200)
        for n, answers in enumerate(said.values())
    )

    card = report(old, new, rows)

    heldout = card["heldout"]
    assert (heldout["answers"], heldout["written"]) == ("text", 50)
    assert heldout["chrf"]["after"]["value"] == heldout["token_f1"]["after"]["value"] == 1.0
    assert heldout["chrf"]["difference"]["low"] > 0.5
    assert card["verdict"]["metric"] == "loss"
    assert card["labels"] is None


def test_labels_are_told_apart_one_by_one() -> None:
    rows = [EncodedExample(n, [1, 2], ((1, 2),), "which?", "cat" if n % 2 else " dog") for n in range(40)]
    before = scores([n % 2 == 0 for n in range(40)])

    card = report(before, scores([n % 2 == 1 for n in range(40)]), rows)

    assert card["heldout"]["answers"] == "labels"
    assert card["labels"] == [
        {"label": "dog", "examples": 20, "before": 20, "after": 0},
        {"label": "cat", "examples": 20, "before": 0, "after": 20},
    ]
    assert "Label accuracy on 40 held-out examples went from 50.0% to 50.0%" in card["verdict"]["text"]
    assert card["heldout"]["chrf"] is None


def test_what_became_of_general_text_stands_beside_the_verdict() -> None:
    change = {"value": 0.008, "low": -0.001, "high": 0.017}
    side = {"value": 1.2, "low": 1.1, "high": 1.3}
    english = {"language": "en", "is_applicable": True, "before": side, "after": side, "change": change}

    card = report(scores([False] * 20), scores([True] * 20), canaries=[english | {"code": "no_clear_change"}])

    assert card["forgetting"] == {
        "code": "no_clear_change",
        "text": "General English text: loss +0.8% (-0.1% to +1.7% with 95% confidence), no clear change.",
    }
