from __future__ import annotations

import pytest

from terakoya.rag.core.follow_up import MAX_CARRIED, leans, standalone


@pytest.mark.parametrize(
    ("earlier", "question", "carries"),
    [
        ("Within how many days may lamps be returned?", "What about cushions?", ("lamps", "returned", "days")),
        ("有給休暇は何日もらえますか？", "申請はいつまでですか、それは誰に出しますか？", ("有給休暇",)),
        ("経費精算の締め日はいつですか", "では領収書は？", ("経費精算", "締め日")),
        ("How is the MC-240 cleaned?", "And the MC-310?", ("cleaned",)),
    ],
)
def test_a_question_that_leans_is_looked_for_with_the_topic(
    earlier: str, question: str, carries: tuple[str, ...]
) -> None:
    asked = standalone(question, ["something else entirely", earlier])
    assert asked.startswith(question)
    for word in carries:
        assert word in asked
    assert "entirely" not in asked


def test_the_sibling_that_is_no_longer_meant_stays_behind() -> None:
    assert "240" not in standalone("And the MC-310?", ["How is the MC-240 cleaned?"])


@pytest.mark.parametrize(
    "question",
    [
        "Which batteries does the projector in the meeting room need?",
        "出張の宿泊費の上限はいくらですか",
        "How many parcels leave the warehouse on weekdays?",
    ],
)
def test_a_question_that_says_enough_is_left_as_it_is(question: str) -> None:
    assert not leans(question)
    assert standalone(question, ["Where are lamps made?"]) == question


def test_the_first_question_is_never_changed() -> None:
    assert standalone("What about it?", []) == "What about it?"


def test_a_long_talk_does_not_pile_up() -> None:
    asked = " ".join(f"word{number}" for number in range(40))
    for _ in range(5):
        asked = standalone("And that one?", [asked])
    assert len(asked.split("—")[1].split()) <= MAX_CARRIED
