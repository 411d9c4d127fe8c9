from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from terakoya.domain.tasks import ProcessIdentity, TaskKind, TaskState
from terakoya.exceptions import Conflict, TaskNotFound
from terakoya.storage.control import requested_action
from terakoya.storage.database import open_database
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.tasks.service import TaskService


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path).create()


@pytest.fixture
def repository(data_dir: DataDir) -> Iterator[SqlTaskRepository]:
    engine = open_database(data_dir)
    yield SqlTaskRepository(engine, data_dir)
    engine.dispose()


@pytest.fixture
def service(repository: SqlTaskRepository, data_dir: DataDir) -> TaskService:
    return TaskService(repository, FileEventLog(data_dir), data_dir)


def submit(service: TaskService) -> str:
    return service.submit(TaskKind.TRAINING, name="run", request={}, resolved={}).id


def test_a_submitted_task_is_queued_said_and_wakes_the_supervisor(service: TaskService) -> None:
    woken: list[bool] = []
    service.on_change(lambda: woken.append(True))
    task_id = submit(service)
    assert service.get(task_id).state is TaskState.QUEUED
    assert [event["state"] for event in service.events(task_id)] == ["queued"]
    assert woken == [True]
    assert service.logs(task_id) == ""


def test_a_waiting_task_is_cancelled_at_once_and_can_be_resumed(service: TaskService) -> None:
    task_id = submit(service)
    assert service.cancel(task_id, keep=True).state is TaskState.CANCELLED
    assert service.events(task_id)[-1]["type"] == "finished"
    assert service.resume(task_id).attempt == 2
    with pytest.raises(Conflict, match="queued"):
        service.resume(task_id)


def test_only_training_can_keep_what_it_has(service: TaskService, repository: SqlTaskRepository) -> None:
    task = service.submit(TaskKind.INGEST, name="file", request={}, resolved={})
    repository.set_owner(repository.claim(task.id), ProcessIdentity("boot", 1, 1.0))
    with pytest.raises(Conflict, match="nothing to keep half-way"):
        service.cancel(task.id, keep=True)
    assert service.get(task.id).state is TaskState.RUNNING


def test_a_paused_task_goes_to_the_front_only_once_it_is_resumed(service: TaskService) -> None:
    first, second = submit(service), submit(service)
    service.pause(second)
    with pytest.raises(Conflict, match="when it is resumed"):
        service.move_to_front(second)
    service.resume(second)
    service.move_to_front(second)
    assert [task.id for task in service.queue()] == [second, first]


def test_keep_leaves_the_task_running_and_a_plain_cancel_overrides_it(
    service: TaskService, repository: SqlTaskRepository, data_dir: DataDir
) -> None:
    task_id = submit(service)
    repository.set_owner(repository.claim(task_id), ProcessIdentity("boot", 1, 1.0))
    assert service.cancel(task_id, keep=True).state is TaskState.RUNNING
    assert requested_action(data_dir.task(task_id)) == "finish"
    assert service.cancel(task_id).state is TaskState.CANCELLING
    assert service.cancel(task_id).state is TaskState.CANCELLING
    with pytest.raises(Conflict, match="nothing of it is kept"):
        service.cancel(task_id, keep=True)


@pytest.mark.parametrize("method", ["get", "events", "logs", "cancel", "resume"])
def test_an_unknown_task_is_not_found(service: TaskService, method: str) -> None:
    with pytest.raises(TaskNotFound):
        getattr(service, method)("../../etc")
