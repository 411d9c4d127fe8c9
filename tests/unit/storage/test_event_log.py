from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from terakoya.domain.events import Event, EventType
from terakoya.storage import event_log as event_log_module
from terakoya.storage.event_log import EventWriter, FileEventLog
from terakoya.storage.files import DataDir, new_id


@pytest.fixture
def log(data_dir: DataDir) -> FileEventLog:
    return FileEventLog(data_dir)


@pytest.fixture
def task_id() -> str:
    return new_id("task")


def path_of(data_dir: DataDir, task_id: str) -> Path:
    return data_dir.task(task_id) / "events.jsonl"


async def collect(events: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(5):
        return [event async for event in events]


def test_events_are_numbered_by_line_and_read_from_anywhere(log: FileEventLog, data_dir: DataDir, task_id: str) -> None:
    assert log.read(task_id) == []
    log.append(task_id, "state", attempt=1, state="queued")
    worker = EventWriter(path_of(data_dir, task_id), attempt=1)
    for step in (1, 2, 3):
        worker.notify(EventType.STEP, step=step, loss=float("nan"), path=Path("x"))
    assert [event["seq"] for event in log.read(task_id)] == [1, 2, 3, 4]
    [event] = log.read(task_id, after=2, limit=1)
    assert (event["seq"], event["step"], event["loss"], event["path"], event["attempt"]) == (3, 2, None, "x", 1)
    assert event["time"].endswith("+00:00")
    assert "seq" not in json.loads(path_of(data_dir, task_id).read_text().splitlines()[0])


def test_a_torn_line_is_skipped_closed_by_the_next_writer_and_keeps_its_number(
    log: FileEventLog, data_dir: DataDir, task_id: str
) -> None:
    log.append(task_id, "state", attempt=1, state="running")
    with path_of(data_dir, task_id).open("ab") as file:
        file.write(b'{"type": "step", "lo')
    assert [event["seq"] for event in log.read(task_id)] == [1]
    log.append(task_id, "finished", attempt=1, status="failed")
    assert [(event["seq"], event["type"]) for event in log.read(task_id)] == [(1, "state"), (3, "finished")]


def test_a_reader_meets_lines_longer_and_files_larger_than_its_buffer(
    log: FileEventLog, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log_module, "_CHUNK_BYTES", 128)
    for length in (1, 1000, 5, 90, 400):
        log.append(task_id, "log", attempt=1, message="x" * length)
    assert [len(event["message"]) for event in log.read(task_id)] == [1, 1000, 5, 90, 400]


async def test_a_follower_gets_what_was_then_what_comes_each_once(log: FileEventLog, task_id: str) -> None:
    for step in range(3):
        log.append(task_id, "step", attempt=1, step=step)
    following = asyncio.create_task(collect(log.follow(task_id, after=1)))
    await asyncio.sleep(0.15)
    log.append(task_id, "step", attempt=1, step=3)
    log.append(task_id, "finished", attempt=1, status="succeeded")
    assert [event["seq"] for event in await following] == [2, 3, 4, 5]


async def test_a_follower_may_come_before_the_log_and_after_its_end(log: FileEventLog, task_id: str) -> None:
    early = asyncio.create_task(collect(log.follow(task_id)))
    await asyncio.sleep(0.02)
    log.append(task_id, "finished", attempt=1, status="succeeded")
    assert len(await early) == 1
    assert await collect(log.follow(task_id, after=1)) == []
    assert await collect(log.follow(task_id, after=10**9)) == []


async def test_a_later_attempt_goes_on_in_the_same_stream(log: FileEventLog, task_id: str) -> None:
    log.append(task_id, "finished", attempt=1, status="failed")
    log.append(task_id, "state", attempt=2, state="queued")
    following = asyncio.create_task(collect(log.follow(task_id)))
    await asyncio.sleep(0.02)
    log.append(task_id, "finished", attempt=2, status="succeeded")
    assert [event["attempt"] for event in await following] == [1, 2, 2]
