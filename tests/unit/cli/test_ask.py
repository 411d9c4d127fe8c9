from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from terakoya.cli import connection
from terakoya.cli.ask import print_answer
from terakoya.cli.main import app
from terakoya.exceptions import Unavailable

CITATION = {
    "number": 1,
    "document_id": "document_1",
    "version": 1,
    "passage_id": "p",
    "title": "Handbook",
    "page": 3,
    "start": 9,
    "end": 58,
    "quote": "Lamps may be\nreturned within 21 days.",
    "answer_start": 0,
    "answer_end": 36,
    "support": "verbatim",
    "verified": True,
}
ANSWERED = {
    "answer": "Lamps may be\nreturned within 21 days. [1]",
    "mode": "extractive",
    "citations": [CITATION],
    "verdict": "answered",
    "trace_id": "trace_1",
    "model": None,
    "evidence": [],
    "details": {"reason": "asked for"},
}
REFUSED = ANSWERED | {
    "answer": "",
    "citations": [],
    "verdict": "not_in_documents",
    "evidence": [{"title": "Pool", "page": None, "text": "The pool opens at seven. " * 20}],
}


def test_an_answer_is_printed_with_its_numbered_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(ANSWERED)
    shown = capsys.readouterr()
    assert "[1] Handbook, p. 3: “Lamps may be returned within 21 days.”" in shown.out
    assert "word for word" in shown.err


def test_a_refusal_shows_the_nearest_passages(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(REFUSED)
    shown = capsys.readouterr().out
    assert "do not hold the answer" in shown
    assert "- Pool: The pool opens at seven." in shown
    assert "…" in shown


def test_failed_citations_are_counted_but_not_numbered(capsys: pytest.CaptureFixture[str]) -> None:
    failed = CITATION | {"number": 0, "verified": False, "support": "numbers_differ"}
    print_answer(ANSWERED | {"mode": "generative", "model": "writer", "citations": [CITATION, failed]})
    shown = capsys.readouterr()
    assert "[0]" not in shown.out
    assert "1 citations failed the check (numbers_differ)" in shown.err
    assert "Written by writer" in shown.err


class Asked:
    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.options: dict[str, Any] = {}

    def ask_stream(self, query: str, **options: Any) -> Iterator[dict[str, Any]]:
        self.options = {"query": query, **options}
        return iter(self.events)


def run(events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Any, Asked]:
    client = Asked(events)

    @contextmanager
    def connect() -> Iterator[Any]:
        yield type("Connection", (), {"client": client})

    monkeypatch.setattr(connection, "connect", connect)
    return CliRunner().invoke(app, ["ask", *arguments]), client


@pytest.mark.parametrize("answer", [ANSWERED, REFUSED])
def test_answer_and_refusal_both_exit_with_0(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"type": "token", "text": "draft"}, {"type": "done", "answer": answer}]
    result, client = run(events, monkeypatch, "May lamps be returned?", "--mode", "auto", "--model", "writer")
    assert result.exit_code == 0
    assert "draft" not in result.stdout
    assert "asked for" in result.stderr or answer is REFUSED
    assert client.options == {
        "query": "May lamps be returned?",
        "collection": "default",
        "mode": "auto",
        "model": "writer",
        "top_k": 10,
        "filters": None,
        "earlier": (),
    }


def test_an_error_in_the_stream_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"type": "error", "error": "the model server is gone", "code": "unavailable"}]
    result, _ = run(events, monkeypatch, "Lamps?")
    assert isinstance(result.exception, Unavailable)
