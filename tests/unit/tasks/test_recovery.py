from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from terakoya.domain.tasks import Outcome, ProcessIdentity, Task, TaskKind, TaskState
from terakoya.storage.database import open_database
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.storage.worker_io import DISK_WAS_FULL, write_outcome
from terakoya.tasks.conclusion import conclude
from terakoya.tasks.process import _state_and_start, boot_id
from terakoya.tasks.recovery import recover
from terakoya.tasks.service import TaskService

DEAD = ProcessIdentity("an earlier boot", 7, 1.0)


class House:
    def __init__(self, root: Path) -> None:
        self.data_dir = DataDir(root).create()
        self.engine = open_database(self.data_dir)
        self.repository = SqlTaskRepository(self.engine, self.data_dir)
        self.log = FileEventLog(self.data_dir)
        self.service = TaskService(self.repository, self.log, self.data_dir)

    def launched(self, owner: ProcessIdentity = DEAD, *, begun: bool = True) -> Task:
        task = self.service.submit(TaskKind.TRAINING, name="run", request={}, resolved={})
        task = self.repository.set_owner(self.repository.claim(task.id), owner)
        if begun:
            (self.data_dir.task(task.id) / "begun").write_text(str(task.fencing_token))
        return task

    def recover(self) -> list[Task]:
        return recover(self.repository, self.log, self.data_dir)

    def types(self, task: Task) -> list[str]:
        return [event["type"] for event in self.log.read(task.id)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.engine.dispose()


def test_a_claimed_task_that_was_never_started_is_queued_again(house: House) -> None:
    task = house.service.submit(TaskKind.TRAINING, name="run", request={}, resolved={})
    house.repository.claim(task.id)
    assert house.recover() == []
    again = house.repository.find(task.id)
    assert (again.state, again.attempt) == (TaskState.QUEUED, 1)


def test_a_worker_that_was_still_at_its_gate_is_queued_again(house: House) -> None:
    task = house.launched(begun=False)
    house.recover()
    assert house.repository.find(task.id).state is TaskState.QUEUED


def test_a_worker_that_died_unwatched_is_failed(house: House) -> None:
    task = house.launched()
    (house.data_dir.task(task.id) / "output.log").write_text("step 1\nout of luck\n")
    house.recover()
    ended = house.repository.find(task.id)
    assert (ended.state, ended.error_code) == (TaskState.FAILED, "worker_died")
    assert str(ended.error).endswith("step 1\nout of luck")
    assert house.types(task)[-1] == "finished"


def test_a_living_worker_is_handed_over_not_concluded(house: House) -> None:
    state_and_start = _state_and_start(1)
    assert state_and_start is not None
    task = house.launched(ProcessIdentity(boot_id(), 1, state_and_start[1]))
    assert house.recover() == [task]


def test_a_cancelled_task_without_a_process_is_cancelled(house: House) -> None:
    task = house.service.submit(TaskKind.TRAINING, name="run", request={}, resolved={})
    house.repository.claim(task.id)
    house.service.cancel(task.id)
    house.recover()
    assert house.repository.find(task.id).state is TaskState.CANCELLED


def test_an_end_that_was_recorded_but_not_announced_is_announced_once(house: House) -> None:
    task = house.launched()
    house.repository.finish(task, TaskState.FAILED, error="died", error_code="worker_died")
    house.recover()
    house.recover()
    assert house.types(task).count("finished") == 1
    house.log.append(task.id, "log", attempt=1, message="late")  # the mark was lost, the event was not
    with house.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE tasks SET announced = 0")
    house.recover()
    assert house.types(task).count("finished") == 1


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b'{"status": "splendid", "attempt": 1}'])
def test_an_outcome_that_cannot_be_read_fails_the_task(house: House, broken: bytes) -> None:
    task = house.launched()
    (house.data_dir.task(task.id) / "outcome.json").write_bytes(broken)
    ended = conclude(task, 0, repository=house.repository, event_log=house.log, data_dir=house.data_dir)
    assert (ended.state, ended.error_code) == (TaskState.FAILED, "internal_error")


def test_a_model_that_may_not_be_registered_fails_the_task_with_the_reason(house: House) -> None:
    task = house.launched()
    result = house.data_dir.task(task.id) / "result"
    result.mkdir()
    (result / "pytorch_model.bin").touch()
    model = {
        "name": "x",
        "kind": "full",
        "directory": "result",
        "parent_id": None,
        "architecture": "llama",
        "parameters": 1,
        "license": "mit",
        "source": "task",
    }
    write_outcome(house.data_dir.task(task.id), Outcome(TaskState.SUCCEEDED, 1, model=model))
    house.recover()
    ended = house.repository.find(task.id)
    assert (ended.state, ended.error_code) == (TaskState.FAILED, "unsafe_artifact")
    assert "pytorch_model.bin" in str(ended.error)


@pytest.mark.parametrize(("status", "kept"), [(TaskState.SUCCEEDED, False), (TaskState.FAILED, True)])
def test_checkpoints_stay_only_while_something_can_go_on_from_them(house: House, status: TaskState, kept: bool) -> None:
    task = house.launched()
    checkpoint = house.data_dir.task(task.id) / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    write_outcome(house.data_dir.task(task.id), Outcome(status, task.attempt))
    house.recover()
    assert checkpoint.exists() is kept


def test_a_worker_whose_outcome_found_no_room_is_said_to_have_met_a_full_disk(house: House) -> None:
    task = house.launched()
    ended = conclude(task, DISK_WAS_FULL, repository=house.repository, event_log=house.log, data_dir=house.data_dir)
    assert "the disk was full; free some space and resume it" in str(ended.error)
