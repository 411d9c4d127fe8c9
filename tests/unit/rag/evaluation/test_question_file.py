from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from terakoya.domain.evaluation import Expected, SetQuestion
from terakoya.exceptions import InvalidQuestions
from terakoya.rag.evaluation import question_file
from terakoya.rag.evaluation.question_file import read_questions


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def read(tmp_path: Path, content: str | bytes, filename: str = "questions.jsonl") -> list[SetQuestion]:
    path = tmp_path / "upload"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_questions(path, filename)


def test_rows_that_ask_the_same_are_one_question_with_every_passage(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        lines(
            {"question": "返品は何日以内？", "document": "規程", "passage": "30日以内"},
            {"question": " 返品は何日以内？ ", "passage": "到着から30日", "answer": "30日"},
            {"question": "Who was king?", "answerable": False},
        ),
    )
    assert found == [
        SetQuestion("返品は何日以内？", (Expected("規程", "30日以内"), Expected(None, "到着から30日")), ("30日",)),
        SetQuestion("Who was king?", answerable=False),
    ]


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        ("question,document,answer,answerable\nいつ？,規程,,\n誰？,,,no\n", "q.csv"),
        ("question\tdocument\tanswer\tanswerable\nいつ？\t規程\t\t\n誰？\t\t\tfalse\n", "q.tsv"),
        ('[{"question": "いつ？", "document": "規程"}, {"question": "誰？", "answerable": false}]', "q.json"),
        ("question,document,answer,answerable\nいつ？,規程,,\n誰？,,,no\n".encode("cp932"), "q.csv"),
    ],
)
def test_tables_and_json_say_the_same(tmp_path: Path, content: str | bytes, filename: str) -> None:
    assert read(tmp_path, content, filename) == [
        SetQuestion("いつ？", (Expected("規程"),)),
        SetQuestion("誰？", answerable=False),
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "x", "gold": "y"}, "row 2: there is no field 'gold'; known are question, document"),
        ({"question": " ", "answer": "y"}, "row 2: the question is empty"),
        ({"question": "？！", "answer": "y"}, "row 2: the question is empty"),
        ({"question": "x"}, "nothing says what answers it"),
        ({"question": "x", "answerable": False, "answer": "y"}, "has no document, passage or answer"),
        ({"question": "x", "answerable": "perhaps", "answer": "y"}, "answerable is true or false; got 'perhaps'"),
        ({"question": ["x"], "answer": "y"}, "question is a text"),
        ({"question": "x" * 8001, "answer": "y"}, "at most 8,000 characters; got 8,001"),
        ({"question": "first", "answerable": False}, "an earlier row says otherwise"),
    ],
)
def test_a_bad_row_is_named_by_its_number_and_nothing_is_taken(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidQuestions, match=says):
        read(tmp_path, lines({"question": "first", "answer": "a"}, row))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no question"),
        ("PK\x03\x04", "ZIP archive"),
        ('{"question": "x", ', "row 1: not JSON"),
        ("[" * 100_000, "nested too deeply|not a row|not JSON"),
        ('{"question": "x\\ud800", "answer": "y"}', "lone surrogate|surrogate pair"),
    ],
)
def test_what_is_no_file_of_questions_is_said(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(InvalidQuestions, match=says):
        read(tmp_path, content)


def test_a_set_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_file, "MAX_QUESTIONS", 3)
    with pytest.raises(InvalidQuestions, match="at most 3 questions"):
        read(tmp_path, lines(*({"question": f"q{number}", "answer": "a"} for number in range(4))))
