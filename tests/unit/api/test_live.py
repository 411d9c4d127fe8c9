from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from terakoya.domain.tasks import Task, TaskKind


@pytest.fixture
def finished(client: TestClient) -> Task:
    """A cancelled run: its log holds three events, the last of them ``finished``."""
    tasks = client.app.state.container.tasks  # type: ignore[attr-defined]
    task = tasks.submit(TaskKind.TRAINING, name="r", request={}, resolved={})
    tasks.cancel(task.id)
    return tasks.get(task.id)


def received(client: TestClient, path: str) -> tuple[list[dict[str, object]], int]:
    """Return all messages and the code the server closed with."""
    messages = []
    with client.websocket_connect(f"ws://localhost{path}") as socket:
        try:
            while True:
                messages.append(json.loads(socket.receive_text()))
        except WebSocketDisconnect as end:
            return messages, end.code


@pytest.mark.parametrize("view", ["training", "tasks"])
def test_events_are_replayed_and_the_socket_closes_after_the_end(client: TestClient, finished: Task, view: str) -> None:
    events, code = received(client, f"/ws/{view}/{finished.id}")
    assert code == 1000
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[-1]["type"], events[-1]["status"]) == ("finished", "cancelled")
    rest, _ = received(client, f"/ws/{view}/{finished.id}?after=1")
    assert rest == events[1:]


def test_an_unknown_task_is_told_and_closed_with_4404(client: TestClient) -> None:
    messages, code = received(client, "/ws/training/task_00000000000000000000000000")
    assert code == 4404
    assert messages[0]["code"] == "task_not_found"


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "", "9" * 17, "%C2%B2"])
def test_a_bad_after_is_told_and_closed_with_4422(client: TestClient, finished: Task, after: str) -> None:
    messages, code = received(client, f"/ws/training/{finished.id}?after={after}")
    assert code == 4422
    assert messages[0]["code"] == "invalid_config"


def test_a_task_of_another_kind_is_no_run(client: TestClient) -> None:
    tasks = client.app.state.container.tasks  # type: ignore[attr-defined]
    task = tasks.submit(TaskKind.PULL, name="p", request={}, resolved={})
    _, code = received(client, f"/ws/training/{task.id}")
    assert code == 4404
