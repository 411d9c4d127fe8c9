"""Tasks that the web process does itself: a real supervisor, database and files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from terakoya.domain.events import EventType, Observer
from terakoya.domain.tasks import ProcessIdentity, Task, TaskKind, TaskState
from terakoya.exceptions import UnreadableDocument
from terakoya.storage.database import open_database
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.tasks.process import boot_id, identity_of
from terakoya.tasks.recovery import MAX_DEATHS, recover
from terakoya.tasks.service import TaskService
from terakoya.tasks.supervisor import Supervisor


class House:
    def __init__(self, root: Path) -> None:
        self.data_dir = DataDir(root).create()
        self.repository = SqlTaskRepository(open_database(self.data_dir), self.data_dir)
        self.event_log = FileEventLog(self.data_dir)
        self.service = TaskService(self.repository, self.event_log, self.data_dir)
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    async def work(self, task: Task, observer: Observer) -> dict[str, Any]:
        self.begun.append(task.id)
        observer.notify(EventType.PHASE, phase="parsing")
        match task.request.get("do"):
            case "refuse":
                raise UnreadableDocument("'a.pdf' has no text layer")
            case "fail":
                raise ZeroDivisionError("1/0")
            case "wait":
                await self.gate.wait()
        return {"passages": 3}

    def submit(self, do: str = "") -> Task:
        return self.service.submit(TaskKind.INGEST, name="a.txt", request={"do": do}, resolved={})

    @asynccontextmanager
    async def supervised(self, slots: int = 2) -> AsyncIterator[None]:
        supervisor = Supervisor(
            self.repository,
            self.event_log,
            self.data_dir,
            planners={},
            works={TaskKind.INGEST: self.work},
            slots={TaskKind.INGEST: slots},
            cancel_grace_seconds=1,
            terminate_grace_seconds=1,
        )
        self.service.on_change(supervisor.wake)
        running = asyncio.create_task(supervisor.run())
        try:
            yield
        finally:
            await supervisor.stop()
            await running

    async def end_of(self, task: Task) -> Task:
        async with asyncio.timeout(10):
            async for _ in self.event_log.follow(task.id):
                pass
        return self.repository.find(task.id)

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:  # noqa: ASYNC110  the work is another coroutine's
                await asyncio.sleep(0.01)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_its_result_and_its_events_are_kept(house: House) -> None:
    async with house.supervised():
        task = await house.end_of(house.submit())
    assert (task.state, task.result, task.owner) == (TaskState.SUCCEEDED, {"passages": 3}, None)
    kinds = [event["type"] for event in house.event_log.read(task.id)]
    assert kinds == ["state", "state", "phase", "state", "finished"]


async def test_a_refusal_is_told_in_its_own_words_and_others_go_on(house: House) -> None:
    async with house.supervised():
        refused, broken, good = house.submit("refuse"), house.submit("fail"), house.submit()
        refused, broken, good = [await house.end_of(task) for task in (refused, broken, good)]
    assert (refused.state, refused.error_code) == (TaskState.FAILED, "unreadable_document")
    assert refused.error == "'a.pdf' has no text layer"
    assert (broken.state, broken.error_code, broken.error) == (
        TaskState.FAILED,
        "internal_error",
        "ZeroDivisionError: 1/0",
    )
    assert good.state is TaskState.SUCCEEDED


async def test_no_more_work_at_once_than_there_are_slots(house: House) -> None:
    async with house.supervised(slots=2):
        tasks = [house.submit("wait") for _ in range(4)]
        await house.until_begun(2)
        await asyncio.sleep(0.1)
        assert len(house.begun) == 2
        house.gate.set()
        assert [(await house.end_of(task)).state for task in tasks] == [TaskState.SUCCEEDED] * 4


async def test_cancelling_stops_it_at_once(house: House) -> None:
    async with house.supervised(slots=1):
        task, waiting = house.submit("wait"), house.submit()
        await house.until_begun(1)
        house.service.cancel(task.id)
        assert (await house.end_of(task)).state is TaskState.CANCELLED
        assert (await house.end_of(waiting)).state is TaskState.SUCCEEDED


async def test_stopping_the_server_queues_it_again_under_the_same_attempt(house: House) -> None:
    async with house.supervised():
        task = house.submit("wait")
        await house.until_begun(1)
    left = house.repository.find(task.id)
    assert (left.state, left.attempt, left.owner) == (TaskState.QUEUED, 1, None)
    house.gate.set()
    async with house.supervised():
        assert (await house.end_of(task)).state is TaskState.SUCCEEDED
    assert house.begun == [task.id, task.id]


def as_left_by_a_killed_server(house: House, task: Task) -> None:
    claimed = house.repository.claim(task.id)
    house.repository.set_owner(claimed, ProcessIdentity(boot_id(), 2**22 + 1, 1.0))


async def test_what_a_killed_server_was_doing_is_done_by_the_next(house: House) -> None:
    task = house.submit()
    as_left_by_a_killed_server(house, task)
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt) == (TaskState.SUCCEEDED, 1)


async def test_what_was_being_cancelled_when_the_server_was_killed_stays_cancelled(house: House) -> None:
    task = house.submit()
    as_left_by_a_killed_server(house, task)
    house.service.cancel(task.id)
    async with house.supervised():
        assert (await house.end_of(task)).state is TaskState.CANCELLED
    assert house.begun == []


async def test_a_task_that_this_very_process_could_not_give_back_is_not_waited_for(house: House) -> None:
    task = house.submit()
    house.repository.set_owner(house.repository.claim(task.id), identity_of(os.getpid()))
    async with house.supervised():
        assert (await house.end_of(task)).state is TaskState.SUCCEEDED


def killed(house: House, task: Task, times: int) -> Task:
    for _ in range(times):
        if house.repository.find(task.id).state is TaskState.QUEUED:
            as_left_by_a_killed_server(house, task)
            recover(house.repository, house.event_log, house.data_dir, inline=frozenset({TaskKind.INGEST}))
    return house.repository.find(task.id)


async def test_a_task_at_whose_same_place_servers_keep_ending_is_not_begun_for_ever(house: House) -> None:
    task = house.submit()
    ended = killed(house, task, MAX_DEATHS)
    assert (ended.state, ended.error_code) == (TaskState.FAILED, "server_ended")
    house.service.resume(task.id)
    assert killed(house, task, MAX_DEATHS - 1).state is TaskState.QUEUED


async def test_a_task_that_gets_further_each_time_may_be_interrupted_any_number_of_times(house: House) -> None:
    task = house.submit()
    for done in range(5):
        house.event_log.append(task.id, EventType.PHASE, attempt=1, phase="embedding", done=done)
        assert killed(house, task, MAX_DEATHS - 1).state is TaskState.QUEUED


async def test_a_task_that_only_waits_may_see_any_number_of_servers_end(house: House) -> None:
    task = house.submit()
    for _ in range(MAX_DEATHS + 2):
        as_left_by_a_killed_server(house, task)
        house.event_log.append(task.id, EventType.WARNING, attempt=1, code="waiting", message="no model server yet")
        recover(house.repository, house.event_log, house.data_dir, inline=frozenset({TaskKind.INGEST}))
    assert house.repository.find(task.id).state is TaskState.QUEUED


async def test_a_paused_one_stops_at_once_and_is_done_when_resumed(house: House) -> None:
    async with house.supervised(slots=1):
        task, other = house.submit("wait"), house.submit()
        await house.until_begun(1)
        house.service.pause(task.id)
        assert (await house.end_of(other)).state is TaskState.SUCCEEDED
        assert house.repository.find(task.id).state is TaskState.PAUSED
        house.gate.set()
        house.service.resume(task.id)
        assert (await house.end_of(task)).state is TaskState.SUCCEEDED


async def test_what_was_being_paused_when_the_server_was_killed_is_paused(house: House) -> None:
    task = house.submit()
    as_left_by_a_killed_server(house, task)
    house.service.pause(task.id)
    async with house.supervised():
        await asyncio.sleep(0.1)
    assert house.repository.find(task.id).state is TaskState.PAUSED
    assert [event.get("state") for event in house.event_log.read(task.id)][-1] == "paused"
