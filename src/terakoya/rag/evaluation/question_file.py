"""Reads questions with what answers them from JSONL, JSON, CSV or TSV. All rows are good or nothing is taken; a bad one
is named by its number. Knows no collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terakoya.data.encodings import detect_encoding, name_binary
from terakoya.data.problems import Problem
from terakoya.data.readers.delimited import read_delimited, read_tab_separated
from terakoya.data.readers.json_lines import read_json_lines
from terakoya.data.readers.json_values import read_json_values
from terakoya.data.readers.rows import Rows
from terakoya.data.sources import Source
from terakoya.domain.evaluation import MAX_QUESTIONS, Expected, SetQuestion
from terakoya.exceptions import InvalidDataset, InvalidQuestions

FIELDS = ("question", "document", "passage", "answer", "answerable")
MAX_FILE_BYTES = 16 * 2**20
_LONGEST = {"question": 8_000, "document": 500, "passage": 20_000, "answer": 2_000}
_NAMED_ROWS = 5
_HEAD_BYTES = 4096
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def read_questions(path: Path, filename: str | None) -> list[SetQuestion]:
    """Return the questions in order; rows that ask the same are one question, whose every passage should be found.

    Raises: InvalidQuestions naming the first bad rows, or what the file is instead.
    """
    try:
        rows = _opened(Source(path, limit_bytes=MAX_FILE_BYTES), (filename or "").lower().removesuffix(".gz"))
        return _joined(rows)
    except InvalidDataset as error:
        raise InvalidQuestions(str(error)) from error


def _opened(source: Source, filename: str) -> Rows:
    head = source.head(_HEAD_BYTES)
    if (kind := name_binary(head)) is not None:
        raise InvalidQuestions(f"this is {kind}, which is not read; send questions as JSONL, JSON, CSV or TSV")
    encoding = detect_encoding(source)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        return read_json_values(source, encoding)
    if start.startswith(b"{"):
        return read_json_lines(source, encoding)
    return read_tab_separated(source, encoding) if filename.endswith(".tsv") else read_delimited(source, encoding)


def _joined(rows: Rows) -> list[SetQuestion]:
    found: dict[str, SetQuestion] = {}
    bad: list[str] = []
    for number, row in rows:
        try:
            question = _question(row)
            if (earlier := found.get(question.question)) is not None:
                question = _merged(earlier, question)
            found[question.question] = question
        except InvalidQuestions as error:
            bad.append(f"row {number}: {error}")
            if len(bad) > _NAMED_ROWS:
                break
        if len(found) > MAX_QUESTIONS:
            raise InvalidQuestions(f"a set has at most {MAX_QUESTIONS:,} questions; cut the file into several")
    if bad:
        more = "; and more" if len(bad) > _NAMED_ROWS else ""
        raise InvalidQuestions("; ".join(bad[:_NAMED_ROWS]) + more)
    if not found:
        raise InvalidQuestions('the file has no question; a row is {"question": ..., "document": ..., "passage": ...}')
    return list(found.values())


def _question(row: Mapping[str, Any] | Problem) -> SetQuestion:
    """Raises: InvalidQuestions."""
    if isinstance(row, Problem):
        raise InvalidQuestions(f"{row.reason}; {row.remedy}")
    if unknown := sorted(set(row) - set(FIELDS)):
        raise InvalidQuestions(f"there is no field {unknown[0][:40]!r}; known are {', '.join(FIELDS)}")
    question, document, passage, answer = (_text(row, name) for name in FIELDS[:-1])
    if question is None or not any(map(str.isalnum, question)):
        raise InvalidQuestions("the question is empty; write what is asked")
    if not _answerable(row):
        if document or passage or answer:
            raise InvalidQuestions("a question that is not answerable has no document, passage or answer")
        return SetQuestion(question, answerable=False)
    if not (document or passage or answer):
        raise InvalidQuestions(
            "nothing says what answers it; name a document, a passage or an answer, or set answerable to false"
        )
    expected = (Expected(document, passage),) if document or passage else ()
    return SetQuestion(question, expected, (answer,) if answer else ())


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidQuestions(f"{name} is a text; got {value!r:.40}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidQuestions(f"{name} holds half a character (a lone surrogate); send it as UTF-8")
    text = value.strip()
    if len(text) > _LONGEST[name]:
        raise InvalidQuestions(f"{name} has at most {_LONGEST[name]:,} characters; got {len(text):,}")
    return text or None


def _answerable(row: Mapping[str, Any]) -> bool:
    value = row.get("answerable")
    if value is None or value == "":
        return True
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in (*_TRUE, *_FALSE):
        raise InvalidQuestions(f"answerable is true or false; got {value!r:.40}")
    return word in _TRUE


def _merged(one: SetQuestion, other: SetQuestion) -> SetQuestion:
    if one.answerable != other.answerable:
        raise InvalidQuestions(
            "an earlier row says otherwise of whether the question is answerable; remove one of them"
        )
    expected = tuple(dict.fromkeys((*one.expected, *other.expected)))
    return SetQuestion(one.question, expected, tuple(dict.fromkeys((*one.answers, *other.answers))), one.answerable)
