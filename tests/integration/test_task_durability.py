"""Pause and resume, restarts of workers that died, limits, order and devices: a real supervisor with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_supervisor import WORKERS_PATH, House, is_gone, of_process

from terakoya.domain.tasks import Task, TaskKind, TaskState
from terakoya.exceptions import Conflict
from terakoya.tasks import supervisor
from terakoya.tasks.conclusion import conclude


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("PYTHONPATH", WORKERS_PATH)
    house = House(tmp_path)
    yield house
    for task in house.repository.list_tasks(states=frozenset({TaskState.RUNNING, TaskState.PAUSING})):
        with suppress(ProcessLookupError):  # it may have ended just now
            os.killpg(task.owner.pid, signal.SIGKILL)  # type: ignore[union-attr]
    house.engine.dispose()


async def until(house: House, task: Task, state: TaskState, seconds: float = 10) -> Task:
    async with asyncio.timeout(seconds):
        while (found := house.repository.find(task.id)).state is not state:  # noqa: ASYNC110  the row is all there is
            await asyncio.sleep(0.02)
    return found


def restarts(house: House, task: Task) -> list[dict[str, Any]]:
    return [dict(event) for event in house.event_log.read(task.id) if event.get("code") == "restarted"]


# -- pause and resume ------------------------------------------------------------------------------


async def test_a_paused_task_frees_its_slot_and_goes_on_when_resumed(house: House) -> None:
    task = house.submit(do="rest")
    waiting = house.submit(do="succeed")
    async with house.supervised():
        worker = await house.in_worker(task)
        assert house.service.pause(task.id).state is TaskState.PAUSING
        assert (await house.end_of(waiting)).state is TaskState.SUCCEEDED
        paused = await until(house, task, TaskState.PAUSED)
        assert is_gone(worker)
        assert (paused.owner, paused.finished_at, paused.attempt) == (None, None, 1)
        assert paused.worked_seconds > 0
        house.service.resume(task.id)
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt) == (TaskState.SUCCEEDED, 2)
    states = [event["state"] for event in house.event_log.read(task.id) if event["type"] == "state"]
    assert states == [
        *("queued", "preparing", "running", "pausing", "paused"),
        *("queued", "preparing", "running", "succeeded"),
    ]


async def test_a_pause_survives_restarts_of_the_web_process(house: House) -> None:
    task = house.submit(do="rest")
    async with house.supervised():
        await house.in_worker(task)
    house.service.pause(task.id)  # nobody watches now
    async with house.supervised():
        await until(house, task, TaskState.PAUSED)
    async with house.supervised():
        await asyncio.sleep(0.2)
        assert house.repository.find(task.id).state is TaskState.PAUSED
        house.service.resume(task.id)
        assert (await house.end_of(task)).state is TaskState.SUCCEEDED


async def test_a_worker_that_does_not_hear_is_paused_by_signals(house: House) -> None:
    task = house.submit(do="ignore")
    async with house.supervised(cancel=0.1, terminate=0.1):
        worker = await house.in_worker(task)
        await house.message(task)
        house.service.pause(task.id)
        await until(house, task, TaskState.PAUSED)
    assert is_gone(worker)


async def test_a_queued_task_is_held_and_a_pausing_one_can_still_be_cancelled(house: House) -> None:
    running, held = house.submit(do="ignore"), house.submit(do="succeed")
    assert house.service.pause(held.id).state is TaskState.PAUSED
    async with house.supervised(cancel=30, terminate=0.1):
        await house.in_worker(running)
        house.service.pause(running.id)
        with pytest.raises(Conflict, match="is pausing"):
            house.service.resume(running.id)
        house.service.cancel(running.id)
        os.kill(house.repository.find(running.id).owner.pid, signal.SIGKILL)  # type: ignore[union-attr]
        assert (await house.end_of(running)).state is TaskState.CANCELLED
        assert house.repository.find(held.id).state is TaskState.PAUSED
        house.service.resume(held.id)
        assert (await house.end_of(held)).state is TaskState.SUCCEEDED


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "crash", "memory"])
async def test_a_dead_worker_is_started_again_and_the_reason_is_told(house: House, how: str) -> None:
    task = house.submit(do="die", times=2, how=how, limits={"max_restarts": 2})
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt, ended.error) == (TaskState.SUCCEEDED, 3, None)
    first, second = restarts(house, task)
    assert (first["restart"], second["restart"], first["attempt"], second["attempt"]) == (1, 2, 1, 2)
    assert {"kill": "signal 9", "crash": "exit code 7", "memory": "too little memory"}[how] in first["message"]
    assert len(house.models.list_models()) == 1


async def test_a_worker_that_keeps_dying_at_one_place_is_given_up(house: House) -> None:
    task = house.submit(do="die", times=99, limits={"max_restarts": 2})
    async with house.supervised():
        ended = await house.end_of(task)
        assert (ended.state, ended.attempt, ended.error_code) == (TaskState.FAILED, 3, "worker_died")
        assert "died 3 times in a row without a new checkpoint" in str(ended.error)
        seen = len(house.event_log.read(task.id))
        house.service.resume(task.id)  # whoever resumes it gives it as many tries again
        async with asyncio.timeout(10):
            async for _ in house.event_log.follow(task.id, after=seen):
                pass
    assert house.repository.find(task.id).attempt == 6


async def test_deaths_after_new_checkpoints_do_not_add_up(house: House) -> None:
    task = house.submit(do="die", times=4, checkpoints=True, limits={"max_restarts": 1})
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt) == (TaskState.SUCCEEDED, 5)
    assert [event["restart"] for event in restarts(house, task)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("request_", "code"),
    [({"do": "refuse"}, "training_error"), ({"do": "die", "times": 9, "how": "disk"}, "storage_full")],
)
async def test_what_another_try_would_meet_again_fails_at_once(
    house: House, request_: dict[str, Any], code: str
) -> None:
    task = house.submit(limits={"max_restarts": 5}, **request_)
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt, ended.error_code) == (TaskState.FAILED, 1, code)
    assert restarts(house, task) == []


async def test_the_pauses_between_restarts_double_and_the_slot_is_kept(house: House) -> None:
    task = house.submit(do="die", times=3, limits={"max_restarts": 3})
    second = house.submit(do="succeed")
    async with house.supervised(restart_pause=0.2):
        ends = [await house.end_of(each) for each in (task, second)]
    assert [event["pause_seconds"] for event in restarts(house, task)] == [0.2, 0.4, 0.8]
    assert ends[0].finished_at < ends[1].started_at  # type: ignore[operator]


async def test_a_dead_worker_keeps_its_slot_while_its_end_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*arguments: Any, **fields: Any) -> Task:
        house.service.submit(TaskKind.TRAINING, name="later", request={"do": "succeed"}, resolved={})  # wakes it
        time.sleep(0.5)
        return conclude(*arguments, **fields)

    monkeypatch.setattr(supervisor, "conclude", slowly)
    task = house.submit(do="die", times=1, limits={"max_restarts": 3})
    second = house.submit(do="succeed")
    async with house.supervised(restart_pause=0.2):
        ends = [await house.end_of(each) for each in (task, second)]
    assert ends[0].finished_at < ends[1].started_at  # type: ignore[operator]


async def test_a_resting_task_that_is_cancelled_frees_its_slot_at_once(house: House) -> None:
    task = house.submit(do="die", times=1, limits={"max_restarts": 3})
    second = house.submit(do="succeed")
    async with house.supervised(restart_pause=60):
        async with asyncio.timeout(10):
            while not restarts(house, task) or house.repository.find(task.id).attempt == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # it rests, and nothing else wakes the supervisor
        assert house.service.cancel(task.id).state is TaskState.CANCELLED
        assert (await house.end_of(second)).state is TaskState.SUCCEEDED


async def test_a_resting_task_can_be_paused_and_lets_others_go_first(house: House) -> None:
    task = house.submit(do="die", times=1, limits={"max_restarts": 3})
    second = house.submit(do="succeed")
    async with house.supervised(restart_pause=60):
        async with asyncio.timeout(10):
            while not restarts(house, task) or house.repository.find(task.id).attempt == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert house.service.pause(task.id).state is TaskState.PAUSED
        assert (await house.end_of(second)).state is TaskState.SUCCEEDED


async def test_a_worker_that_died_while_nobody_watched_is_started_again(house: House) -> None:
    task = house.submit(do="rest", limits={"max_restarts": 1})
    async with house.supervised():
        worker = await house.in_worker(task)
    os.kill(worker, signal.SIGKILL)
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt) == (TaskState.SUCCEEDED, 2)
    assert len(restarts(house, task)) == 1


# -- limits ----------------------------------------------------------------------------------------


async def test_a_task_that_has_worked_for_too_long_is_stopped_with_that_reason(house: House) -> None:
    task = house.submit(do="obey", limits={"max_hours": 0.5 / 3600, "max_restarts": 5})
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.error_code, ended.attempt) == (TaskState.FAILED, "time_limit", 1)
    assert "resume it to go on" in str(ended.error)
    assert house.service.resume(task.id).worked_seconds == 0


async def test_the_time_of_earlier_attempts_counts(house: House) -> None:
    task = house.submit(do="obey", limits={"max_hours": 4 / 3600})
    async with house.supervised():
        await house.in_worker(task)
        await asyncio.sleep(0.8)
        house.service.pause(task.id)  # which this worker takes for a cancellation
        first = await house.end_of(task)
        assert first.state is TaskState.CANCELLED
        assert first.worked_seconds > 0.8
        house.service.resume(task.id)
        ended = await until(house, task, TaskState.FAILED)
    assert ended.error_code == "time_limit"
    assert 3.9 < ended.worked_seconds < 9


@pytest.mark.parametrize("beats", [False, True])
async def test_only_a_worker_without_a_sign_of_life_is_killed_and_started_again(house: House, beats: bool) -> None:
    limits = {"no_progress_minutes": 3 / 60, "max_restarts": 1}
    task = house.submit(do="fall_silent", beats=beats, limits=limits)
    async with house.supervised(terminate=0.1):
        worker = await house.in_worker(task)
        if beats:
            await asyncio.sleep(4)
            assert not is_gone(worker)
            assert restarts(house, task) == []
            os.kill(worker, signal.SIGKILL)
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt) == (TaskState.SUCCEEDED, 2)
    if not beats:
        assert "gave no sign of life" in restarts(house, task)[0]["message"]


# -- order and devices -------------------------------------------------------------------------------


async def test_tasks_start_by_priority_then_by_place(house: House) -> None:
    low, first, second, urgent = (house.submit(do="succeed", priority=each) for each in (-1, 0, 0, 5))
    late = house.submit(do="succeed", priority=-1)
    house.service.move_to_front(late.id)
    assert [task.id for task in house.service.queue()] == [each.id for each in (late, urgent, first, second, low)]
    async with house.supervised():
        ends = [await house.end_of(each) for each in (late, urgent, first, second, low)]
    started = [end.started_at for end in ends]
    assert started == sorted(started)  # type: ignore[type-var]


async def test_each_device_has_slots_of_its_own_and_a_worker_sees_only_its_device(house: House) -> None:
    tasks = [house.submit(do="obey") for _ in range(3)]
    async with house.supervised(devices=("cuda:0", "cuda:7")):
        workers = [await house.in_worker(task) for task in tasks[:2]]
        seen = [of_process(worker, "environ") for worker in workers]
        assert [house.repository.find(task.id).device for task in tasks] == ["cuda:0", "cuda:7", None]
        house.service.cancel(tasks[1].id)
        await house.in_worker(tasks[2])
        assert house.repository.find(tasks[2].id).device == "cuda:7"
    async with house.supervised(devices=("cuda:0", "cuda:7")):  # adopted, each still in its place
        queued = house.submit(do="succeed")
        await asyncio.sleep(0.3)
        assert house.repository.find(queued.id).state is TaskState.QUEUED
        for task in (tasks[0], tasks[2]):
            house.service.cancel(task.id)
        await house.end_of(queued)
    assert b"CUDA_VISIBLE_DEVICES=0\0" in seen[0]
    assert b"CUDA_VISIBLE_DEVICES=7\0" in seen[1]
