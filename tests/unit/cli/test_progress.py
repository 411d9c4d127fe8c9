from __future__ import annotations

import io
import json
from typing import Any

import pytest

from terakoya.cli import output, progress
from terakoya.cli.progress import LiveView, show_events

EVENTS: list[dict[str, Any]] = [
    {"seq": 1, "type": "state", "state": "running"},
    {"seq": 2, "type": "phase", "phase": "reading_data"},
    {"seq": 3, "type": "phase", "phase": "downloading", "done": 10, "total": 90},
    {"seq": 4, "type": "phase", "phase": "downloading", "done": 90, "total": 90},
    {"seq": 5, "type": "warning", "code": "w", "message": "only 2 held-out rows"},
    {"seq": 6, "type": "phase", "phase": "training"},
    {
        "seq": 7,
        "type": "step",
        "step": 1,
        "total_steps": 2,
        "loss": 2.5,
        "tokens_per_second": 1234.5,
        "eta_seconds": 61,
    },
    {"seq": 8, "type": "step", "step": 2, "total_steps": 2, "loss": None, "tokens_per_second": 1300, "eta_seconds": 0},
    {"seq": 8, "type": "eval", "when": "during", "step": 2, "loss": 1.25, "is_best": True},
    {"seq": 9, "type": "eval", "when": "after", "done": 3, "total": 3},
    {"seq": 10, "type": "sample", "text": "a type this view does not know"},
    {"seq": 11, "type": "finished", "status": "succeeded"},
]


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_json_wanted", False)


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_events(EVENTS) == EVENTS[-1]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Warning: only 2 held-out rows" in captured.err
    assert "step 1 of 2  loss 2.500  1,234 tokens/s  1:01 left" in captured.err
    assert "step 2 of 2  1,300 tokens/s  0:00 left" in captured.err
    assert "step 2: held-out loss 1.250 *" in captured.err, "the best so far"
    assert captured.err.count("\x1b") == 0


def test_under_json_each_event_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "_json_wanted", True)
    show_events(EVENTS)
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == EVENTS
    assert captured.err == ""


def test_on_a_terminal_one_line_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "console", lambda **_: Console(file=screen, force_terminal=True, width=120, highlight=False)
    )
    with LiveView() as view:
        for event in EVENTS:
            view.show(event)
            view._progress.refresh()
    shown = screen.getvalue()
    assert "90/90" in shown
    assert "loss 2.500" in shown
    assert "only 2 held-out rows" in shown


def test_events_that_break_off_have_no_end() -> None:
    assert show_events(EVENTS[:3]) is None
