from __future__ import annotations

from typing import Any

import pytest

from terakoya.cli import output
from terakoya.cli.compare import show_answers

EVENTS: list[dict[str, Any]] = [
    {"model": "model_1", "delta": ""},
    {"model": "model_2", "delta": ""},
    {"model": "model_2", "delta": "second"},
    {"model": "model_1", "delta": "fi"},
    {"model": "model_2", "finished": True, "tokens": 1},
    {"model": "model_1", "delta": "rst"},
    {"model": "model_1", "finished": True, "tokens": 2},
]
NAMES = {"model_1": "base", "model_2": "tuned"}


def test_answers_that_came_mixed_are_printed_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert not show_answers(EVENTS, NAMES)
    assert capsys.readouterr().out == "[base]\nfirst\n\n[tuned]\nsecond\n\n"


def test_the_first_answer_is_printed_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def watched() -> Any:
        for event in EVENTS:
            yield event
            seen.append(capsys.readouterr().out)

    show_answers(watched(), NAMES)
    assert seen[3] == "fi"


def test_one_that_failed_is_said_and_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    events = [*EVENTS[:4], {"model": "model_1", "error": "it broke", "code": "x"}, EVENTS[4]]
    assert show_answers(events, NAMES)
    said = capsys.readouterr()
    assert said.out == "[base]\nfi\n\n[tuned]\nsecond\n\n"
    assert "base: it broke" in said.err


def test_json_is_every_event_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_json_wanted", True)
    show_answers(EVENTS, NAMES)
    assert len(capsys.readouterr().out.splitlines()) == len(EVENTS)
