from __future__ import annotations

from typing import Any

import pytest

from terakoya.tasks.deaths import interruptions_in_a_row, is_waiting, pause_before_restart, restarts_in_a_row


def died(attempt: int) -> dict[str, Any]:
    return {"type": "warning", "code": "restarted", "attempt": attempt}


def saved(step: int, attempt: int = 1) -> dict[str, Any]:
    return {"type": "checkpoint", "step": step, "attempt": attempt}


@pytest.mark.parametrize(
    ("events", "in_a_row"),
    [
        ([], 0),
        ([died(1), died(2)], 2),
        ([died(1), died(1)], 1),  # said twice: the server ended between saying it and doing it
        ([died(1), saved(5), died(2)], 1),
        ([saved(5), died(1), saved(5, 2), died(2)], 2),  # no further than before
        ([saved(5), died(1), saved(3, 2), died(2)], 2),
        ([died(1), died(2), {"type": "finished", "attempt": 2}], 0),
    ],
)
def test_only_deaths_without_a_new_checkpoint_are_counted(events: list[dict[str, Any]], in_a_row: int) -> None:
    assert restarts_in_a_row(events) == in_a_row


def test_pauses_double_up_to_a_bound() -> None:
    assert [pause_before_restart(deaths, first_seconds=5) for deaths in (1, 2, 3, 7, 8, 1000)] == [
        *(5, 10, 20),
        *(300, 300, 300),
    ]


RUNNING = {"type": "state", "state": "running", "attempt": 1}
PARSING = {"type": "phase", "phase": "parsing", "attempt": 1}
EMBEDDING = {"type": "phase", "phase": "embedding", "done": 0, "attempt": 1}
WAITING = {"type": "warning", "code": "waiting", "attempt": 1}
AGAIN = {"type": "log", "message": "trying again", "attempt": 1}
INTERRUPTED = {"type": "warning", "code": "interrupted", "attempt": 1}


@pytest.mark.parametrize(
    ("events", "counted"),
    [
        ([RUNNING, PARSING, INTERRUPTED] * 3, 3),
        ([RUNNING, PARSING, WAITING, INTERRUPTED] * 3, 0),
        ([RUNNING, EMBEDDING, INTERRUPTED] * 3, 0),
        ([RUNNING, PARSING, WAITING, AGAIN, INTERRUPTED] * 3, 3),
        ([RUNNING, PARSING, INTERRUPTED, {**PARSING, "attempt": 2}], 1),
    ],
)
def test_a_server_that_ends_while_a_task_only_waits_is_not_the_tasks_doing(
    events: list[dict[str, Any]], counted: int
) -> None:
    assert interruptions_in_a_row(events, 1) == counted


def test_what_was_heard_last_tells_whether_it_waits() -> None:
    assert is_waiting([RUNNING, WAITING], 1)
    assert not is_waiting([RUNNING, WAITING, AGAIN], 1)
    assert not is_waiting([], 1)
