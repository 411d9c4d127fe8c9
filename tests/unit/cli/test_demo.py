"""What the demo counts as done. The whole of it runs in tests/integration/test_demo.py."""

from __future__ import annotations

from typing import Any

import pytest

from terakoya.cli import demo_stages
from terakoya.cli.demo import Stages
from terakoya.cli.demo_stages import Question, free_name, judge

ANSWERED = Question("How long?", "en", "returns.html", "within 14 days")
REFUSED = Question("How many months?", "ja", None, None)
DOCUMENTS = {"returns.html": {"id": "doc_1"}, "other.md": {"id": "doc_2"}}


def answer(**changes: Any) -> dict[str, Any]:
    citation = {"verified": True, "document_id": "doc_1", "quote": "returned within\n14 days"}
    return {
        "verdict": "answered",
        "answer": "It is possible. [1]",
        "citations": [citation | changes.pop("citation", {})],
    } | changes


def test_an_answer_counts_with_a_verified_citation_of_its_document_and_the_fact() -> None:
    assert judge(ANSWERED, answer(), DOCUMENTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "not_in_documents", "citations": []},
        {"citations": []},
        {"citation": {"verified": False}},
        {"citation": {"document_id": "doc_2"}},
        {"citation": {"quote": "returned within 30 days"}},
    ],
)
def test_anything_less_does_not_count(changes: dict[str, Any]) -> None:
    assert not judge(ANSWERED, answer(**changes), DOCUMENTS)


def test_where_no_document_has_it_only_a_refusal_counts() -> None:
    assert judge(REFUSED, answer(verdict="not_in_documents", citations=[]), DOCUMENTS)
    assert not judge(REFUSED, answer(), DOCUMENTS)


def test_a_second_demo_gets_a_name_of_its_own() -> None:
    assert free_name("demo", set()) == "demo"
    assert free_name("demo", {"demo", "x"}) == "demo-2"
    assert free_name("demo", {"demo", "demo-2", "demo-4"}) == "demo-3"


def test_the_bundled_questions_and_documents_are_found() -> None:
    names = {path.name for path in (demo_stages.samples() / "documents").iterdir()}
    asked = demo_stages.questions()
    assert [question.document in names for question in asked] == [True] * 4 + [False]


def test_a_stage_that_fails_is_not_counted_as_done() -> None:
    stages = Stages()
    with stages.stage("one", "One") as row:
        row["result"] = "done"
    with pytest.raises(ValueError, match="no"), stages.stage("two", "Two"):
        raise ValueError("no")
    assert [row["stage"] for row in stages.rows] == ["one"]
    assert stages.total_seconds() >= 0
