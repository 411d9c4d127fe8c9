from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from terakoya.cli import connection
from terakoya.cli.main import app
from terakoya.client.resources import Tasks

TASK: dict[str, Any] = {
    "id": "task_1",
    "kind": "training",
    "name": "tuned",
    "state": "paused",
    "priority": 7,
    "attempt": 2,
    "created_at": "2026-01-01T00:00:00",
    "error": None,
}


class GivenTransport:
    """Remembers what was asked of the API and answers with one task."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        self.asked.append((method, path, options.get("json")))
        return {"tasks": [TASK]} if path == "/api/queue" else TASK


class GivenServer:
    def __init__(self) -> None:
        self.transport = GivenTransport()
        self.tasks = Tasks(self.transport)  # type: ignore[arg-type]
        self.events: list[dict[str, Any]] = []

    def watch(self, task_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        yield from self.events
        raise AssertionError("whoever waits for more waits for ever")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> GivenServer:
    given = GivenServer()

    @contextmanager
    def connect() -> Iterator[Any]:
        yield connection.Connection(given, is_temporary=False)  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "connect", connect)
    return given


@pytest.mark.parametrize(
    ("command", "asked", "said"),
    [
        (["pause", "task_1"], ("POST", "/api/tasks/task_1/pause", None), "paused"),
        (["priority", "task_1", "7"], ("PATCH", "/api/tasks/task_1", {"priority": 7}), "priority 7"),
        (["priority", "task_1", "--", "-7"], ("PATCH", "/api/tasks/task_1", {"priority": -7}), "priority 7"),
        (["priority", "task_1", "--front"], ("PATCH", "/api/tasks/task_1", {"front": True}), "priority 7"),
        (["queue"], ("GET", "/api/queue", None), "tuned"),
    ],
)
def test_each_command_is_one_call(server: GivenServer, command: list[str], asked: Any, said: str) -> None:
    answer = CliRunner().invoke(app, ["tasks", *command])
    assert (answer.exit_code, server.transport.asked) == (0, [asked])
    assert said in answer.output


def test_the_queue_as_json_is_the_apis(server: GivenServer) -> None:
    answer = CliRunner().invoke(app, ["tasks", "queue", "--json"])
    assert json.loads(answer.stdout) == {"tasks": [TASK]}


@pytest.mark.parametrize("command", [["task_1"], ["task_1", "7", "--front"]])
def test_a_priority_without_or_with_two_wishes_is_refused(server: GivenServer, command: list[str]) -> None:
    answer = CliRunner().invoke(app, ["tasks", "priority", *command])
    assert answer.exit_code != 0
    assert server.transport.asked == []


def test_watching_ends_when_the_task_is_paused(server: GivenServer) -> None:
    states = [(1, "paused"), (2, "running"), (2, "pausing"), (2, "paused"), (2, "running")]  # the first is an old one
    server.events = [{"type": "state", "state": state, "attempt": attempt, "seq": 1} for attempt, state in states]
    no_run = TASK | {"kind": "pull"}
    server.transport.request = lambda *_, **__: no_run  # type: ignore[method-assign]
    answer = CliRunner().invoke(app, ["tasks", "watch", "task_1"])
    assert answer.exit_code == 3
    assert "terakoya tasks resume task_1" in answer.output
