"""The supervisor with real worker processes, a real database and real files."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from terakoya.domain.tasks import Launch, Task, TaskKind, TaskState
from terakoya.exceptions import Conflict, DatasetNotFound, StorageFull
from terakoya.storage.database import open_database
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.tasks import supervisor as tasks_supervisor
from terakoya.tasks.service import TaskService
from terakoya.tasks.supervisor import Supervisor

WORKERS_PATH = os.pathsep.join((str(Path(__file__).parents[1] / "workers"), os.environ.get("PYTHONPATH", "")))


def plan(task: Task, task_dir: Path) -> Launch:
    if "missing" in task.request:
        raise DatasetNotFound(f"no data set {task.request['missing']!r}")
    return Launch("tiny_worker", task.request)


class House:
    """The parts of a web process that tasks need."""

    def __init__(self, root: Path) -> None:
        self.data_dir = DataDir(root).create()
        self.engine = open_database(self.data_dir)
        self.repository = SqlTaskRepository(self.engine, self.data_dir)
        self.models = SqlModelRepository(self.engine, self.data_dir)
        self.event_log = FileEventLog(self.data_dir)
        self.service = TaskService(self.repository, self.event_log, self.data_dir)

    def submit(self, *, limits: dict[str, Any] | None = None, priority: int = 0, **request: Any) -> Task:
        resolved = {"limits": limits} if limits else {}
        return self.service.submit(
            TaskKind.TRAINING, name="tuned", request=request, resolved=resolved, priority=priority
        )

    @asynccontextmanager
    async def supervised(
        self, *, cancel: float = 20, terminate: float = 20, devices: tuple[str, ...] = (), restart_pause: float = 0.0
    ) -> AsyncIterator[Supervisor]:
        supervisor = Supervisor(
            self.repository,
            self.event_log,
            self.data_dir,
            planners={TaskKind.TRAINING: plan},
            slots={TaskKind.TRAINING: 1},
            devices={TaskKind.TRAINING: devices},
            restart_pause_seconds=restart_pause,
            cancel_grace_seconds=cancel,
            terminate_grace_seconds=terminate,
        )
        self.service.on_change(supervisor.wake)
        running = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            await supervisor.stop()
            await running

    async def end_of(self, task: Task) -> Task:
        """Wait as a client does: by the event log."""
        async with asyncio.timeout(10):
            async for _ in self.event_log.follow(task.id):
                pass
        return self.repository.find(task.id)

    def worker(self, task: Task) -> int:
        """The worker's pid, once it is past its start."""
        event = wait_until(lambda: [event for event in self.event_log.read(task.id) if event["type"] == "phase"])[-1]
        return int(event["pid"])

    async def in_worker(self, task: Task) -> int:
        return await asyncio.to_thread(self.worker, task)

    async def message(self, task: Task) -> str:
        def logged() -> list[str]:
            return [event["message"] for event in self.event_log.read(task.id) if event["type"] == "log"]

        return (await asyncio.to_thread(wait_until, logged))[-1]


def wait_until(found: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def of_process(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHONPATH", WORKERS_PATH)
    house = House(tmp_path)
    yield house
    for task in house.repository.list_tasks(states=frozenset({TaskState.RUNNING, TaskState.CANCELLING})):
        os.killpg(task.owner.pid, signal.SIGKILL)
    house.engine.dispose()


async def test_a_task_that_succeeds_registers_its_model_once(house: House) -> None:
    task = house.submit(do="succeed")
    async with house.supervised():
        ended = await house.end_of(task)
    assert ended.state is TaskState.SUCCEEDED
    assert ended.result == {"loss": None}
    [model] = house.models.list_models()
    assert (model.id, model.task_id, model.name) == (ended.model_id, task.id, "tuned")
    assert house.models.load_model("Tuned").path.joinpath("model.safetensors").read_bytes() == b"weights"
    assert not (house.data_dir.task(task.id) / "result").exists()
    events = house.service.events(task.id)
    assert [event.get("state", event["type"]) for event in events] == [
        *("queued", "preparing", "running", "phase", "succeeded", "finished")
    ]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[-1]["model_id"] == model.id


async def test_a_name_taken_meanwhile_costs_a_number_and_a_warning_not_the_model(house: House) -> None:
    tasks = [house.submit(do="succeed"), house.submit(do="succeed")]
    async with house.supervised():
        ends = [await house.end_of(task) for task in tasks]
    assert {model.name for model in house.models.list_models()} == {"tuned", "tuned-2"}
    assert len(list(house.data_dir.models.iterdir())) == 1, "the same bytes share a directory"
    assert ends[1].result["renamed_to"] == "tuned-2"
    assert "name_taken" in [event.get("code") for event in house.service.events(tasks[1].id)]


async def test_a_killed_worker_is_reported_failed_with_its_last_log_lines(house: House) -> None:
    task = house.submit(do="obey")
    async with house.supervised():
        os.kill(await house.in_worker(task), signal.SIGKILL)
        ended = await house.end_of(task)
    assert ended.state is TaskState.FAILED
    assert ended.error_code == "worker_died"
    assert "signal 9" in str(ended.error)
    assert "worker at work" in str(ended.error)
    last = house.service.events(task.id)[-1]
    assert (last["type"], last["status"], last["error"]) == ("finished", "failed", ended.error)


@pytest.mark.parametrize(
    ("request_", "error", "code"),
    [
        ({"do": "refuse"}, "rank 0 is no rank", "training_error"),
        ({"do": "stumble"}, "ZeroDivisionError: a bug", "worker_error"),
        ({"missing": "x"}, "no data set 'x'", "dataset_not_found"),
    ],
)
async def test_a_failure_is_told_in_its_own_words(
    house: House, request_: dict[str, str], error: str, code: str
) -> None:
    task = house.submit(**request_)
    async with house.supervised():
        ended = await house.end_of(task)
    assert (ended.state, ended.error, ended.error_code) == (TaskState.FAILED, error, code)
    if request_.get("do") == "stumble":
        assert "Traceback" in house.service.logs(task.id)


async def test_a_cancelled_worker_is_asked_first(house: House) -> None:
    task = house.submit(do="obey")
    async with house.supervised():
        await house.in_worker(task)
        assert house.service.cancel(task.id).state is TaskState.CANCELLING
        ended = await house.end_of(task)
    assert ended.state is TaskState.CANCELLED
    assert ended.error is None
    with pytest.raises(Conflict, match="already been cancelled"):
        house.service.cancel(task.id)


async def test_a_worker_that_ignores_everything_is_killed_with_its_children(house: House) -> None:
    task = house.submit(do="ignore")
    async with house.supervised(cancel=0.1, terminate=0.1):
        worker = await house.in_worker(task)
        grandchild = int(await house.message(task))
        house.service.cancel(task.id)
        ended = await house.end_of(task)
    assert ended.state is TaskState.CANCELLED
    assert is_gone(worker)
    assert is_gone(grandchild)


async def test_what_a_finished_worker_left_behind_is_ended(house: House) -> None:
    task = house.submit(do="leave_a_child")
    async with house.supervised():
        ended = await house.end_of(task)
    assert ended.state is TaskState.SUCCEEDED
    assert is_gone(int(await house.message(task)))


async def test_keeping_a_stopped_run_registers_its_model(house: House) -> None:
    task = house.submit(do="obey")
    async with house.supervised(cancel=0, terminate=0):
        await house.in_worker(task)
        assert house.service.cancel(task.id, keep=True).state is TaskState.RUNNING
        ended = await house.end_of(task)
    assert ended.state is TaskState.SUCCEEDED
    assert ended.model_id is not None


async def test_a_second_task_waits_for_the_first_and_a_waiting_one_is_cancelled_at_once(house: House) -> None:
    first, second, third = (house.submit(do=do) for do in ("succeed_when_told", "succeed", "succeed"))
    async with house.supervised():
        await house.in_worker(first)
        assert house.service.get(second.id).state is TaskState.QUEUED
        assert house.service.cancel(third.id).state is TaskState.CANCELLED
        (house.data_dir.task(first.id) / "go").touch()
        ends = [await house.end_of(task) for task in (first, second, third)]
    assert [task.state for task in ends] == [TaskState.SUCCEEDED, TaskState.SUCCEEDED, TaskState.CANCELLED]
    assert ends[0].finished_at < ends[1].started_at  # type: ignore[operator]


async def test_a_new_supervisor_adopts_a_running_worker(house: House) -> None:
    task = house.submit(do="succeed_when_told")
    async with house.supervised():
        worker = await house.in_worker(task)
    assert not is_gone(worker), "stopping the supervisor leaves workers running"
    async with house.supervised():
        (house.data_dir.task(task.id) / "go").touch()
        ended = await house.end_of(task)
    assert (ended.state, ended.attempt) == (TaskState.SUCCEEDED, 1)
    assert len(house.models.list_models()) == 1


async def test_a_cancel_asked_for_while_nobody_watched_is_carried_out(house: House) -> None:
    task = house.submit(do="obey")
    async with house.supervised():
        await house.in_worker(task)
    house.service.cancel(task.id)
    async with house.supervised():
        ended = await house.end_of(task)
    assert ended.state is TaskState.CANCELLED


async def test_a_worker_that_finished_while_nobody_watched_is_registered(house: House) -> None:
    task = house.submit(do="succeed_when_told")
    async with house.supervised():
        worker = await house.in_worker(task)
    (house.data_dir.task(task.id) / "go").touch()
    await asyncio.to_thread(wait_until, lambda: is_gone(worker))
    assert house.repository.find(task.id).state is TaskState.RUNNING
    async with house.supervised():
        ended = await house.end_of(task)
    assert ended.state is TaskState.SUCCEEDED
    assert ended.model_id is not None


async def test_a_failed_task_is_resumed_as_the_next_attempt_in_the_same_log(house: House) -> None:
    task = house.submit(do="obey")
    async with house.supervised():
        os.kill(await house.in_worker(task), signal.SIGKILL)
        await house.end_of(task)
        seen = len(house.service.events(task.id))
        (house.data_dir.task(task.id) / "control.json").write_text('{"action": "cancel"}')
        house.service.resume(task.id)
        async with asyncio.timeout(10):
            async for event in house.event_log.follow(task.id, after=seen):
                if event["type"] == "phase":
                    assert event["attempt"] == 2
                    house.service.cancel(task.id, keep=True)
    assert house.repository.find(task.id).state is TaskState.SUCCEEDED


async def test_a_worker_is_not_shown_our_secrets(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERAKOYA_API_KEYS", "planted-secret")
    monkeypatch.setenv("HF_TOKEN", "planted-secret")
    task = house.submit(do="obey")
    async with house.supervised():
        worker = await house.in_worker(task)
        environment, oom_score = of_process(worker, "environ"), of_process(worker, "oom_score_adj")
        house.service.cancel(task.id)
        await house.end_of(task)
    assert b"PATH=" in environment
    assert b"planted-secret" not in environment
    assert int(oom_score) == 500, "short of memory, the kernel takes the worker first"


class FullNow(FileEventLog):
    """An event log on a disk that is full when it first is to take a certain line."""

    def __init__(self, data_dir: DataDir, line: str) -> None:
        super().__init__(data_dir)
        self._line: str | None = line

    def append(self, task_id: str, type: str, *, attempt: int, **fields: Any) -> None:
        if self._line is not None and self._line in (type, fields.get("state")):
            self._line = None
            raise StorageFull("no space left for 'events.jsonl'")
        super().append(task_id, type, attempt=attempt, **fields)


@pytest.mark.parametrize("line", ["preparing", "running", "succeeded", "finished"])
async def test_a_disk_that_was_full_for_a_moment_costs_neither_the_task_nor_its_end(
    house: House, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(tasks_supervisor, "_RETRY_SECONDS", 0.1)
    house.event_log = FullNow(house.data_dir, line)
    task = house.submit(do="succeed")
    async with house.supervised():
        ended = await house.end_of(task)
    assert ended.state is TaskState.SUCCEEDED
    types = [event["type"] for event in house.event_log.read(task.id)]
    assert (types.count("phase"), types.count("finished"), types[-1]) == (1, 1, "finished")
    assert house.repository.unannounced() == []


async def test_a_cancelled_waiting_task_is_announced_when_there_is_space_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_supervisor, "_RETRY_SECONDS", 0.1)
    full = FullNow(house.data_dir, "finished")
    service = TaskService(house.repository, full, house.data_dir)
    task = house.submit(do="succeed")
    with pytest.raises(StorageFull):
        service.cancel(task.id)
    async with house.supervised():
        await house.end_of(task)
    assert [event["type"] for event in house.event_log.read(task.id)].count("finished") == 1
