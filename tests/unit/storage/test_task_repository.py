from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from terakoya.domain.tasks import NewModel, ProcessIdentity, Task, TaskKind, TaskState
from terakoya.exceptions import Conflict, ModelNotFound, StaleWriter, TaskNotFound
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository

OWNER = ProcessIdentity("boot", 7, 12345.67)


def add(tasks: SqlTaskRepository, name: str = "run") -> Task:
    return tasks.add(TaskKind.TRAINING, name, {"model": "base"}, {"epochs": 2, "rate": 0.001})


def test_a_task_comes_back_as_it_was_added(tasks: SqlTaskRepository) -> None:
    task = add(tasks)
    assert tasks.find(task.id) == task
    assert (task.state, task.attempt, task.owner, task.resolved) == (
        TaskState.QUEUED,
        1,
        None,
        {"epochs": 2, "rate": 0.001},
    )
    with pytest.raises(TaskNotFound, match=r"no task 'task_x'"):
        tasks.find("task_x")


def test_the_oldest_is_next_and_the_newest_is_listed_first(tasks: SqlTaskRepository) -> None:
    first, second = add(tasks), add(tasks)
    assert tasks.next_queued(TaskKind.TRAINING) == first
    assert tasks.next_queued(TaskKind.PULL) is None
    assert list(tasks.list_tasks()) == [second, first]
    assert list(tasks.list_tasks(limit=1)) == [second]
    assert tasks.list_tasks(states=frozenset({TaskState.FAILED})) == []


def test_of_many_claims_one_holds(tasks: SqlTaskRepository) -> None:
    task = add(tasks)

    def claim(_: int) -> bool:
        try:
            return tasks.claim(task.id).fencing_token == 1
        except Conflict:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_a_writer_with_an_old_token_changes_nothing(tasks: SqlTaskRepository) -> None:
    old = tasks.set_owner(tasks.claim(add(tasks).id), OWNER)
    assert (old.state, old.owner) == (TaskState.RUNNING, OWNER)
    new = tasks.claim(tasks.release(old).id)
    for write in (
        lambda: tasks.set_state(old, TaskState.CANCELLING),
        lambda: tasks.set_owner(old, OWNER),
        lambda: tasks.finish(old, TaskState.SUCCEEDED),
        lambda: tasks.release(old),
    ):
        with pytest.raises(StaleWriter):
            write()
    assert tasks.find(new.id) == new


def test_a_final_state_is_final(tasks: SqlTaskRepository) -> None:
    task = tasks.claim(add(tasks).id)
    tasks.finish(task, TaskState.SUCCEEDED)
    with pytest.raises(StaleWriter, match="already succeeded"):
        tasks.finish(task, TaskState.FAILED)
    with pytest.raises(Conflict, match="only a failed, cancelled or paused one"):
        tasks.requeue(task.id)


def test_a_cancellation_outlives_the_launch_it_met(tasks: SqlTaskRepository) -> None:
    task = tasks.claim(add(tasks).id)
    tasks.set_state(task, TaskState.CANCELLING)
    assert tasks.set_owner(task, OWNER).state is TaskState.CANCELLING


def test_a_requeued_task_begins_its_next_attempt_clean(tasks: SqlTaskRepository) -> None:
    task = tasks.claim(add(tasks).id)
    tasks.finish(task, TaskState.FAILED, error="died", error_code="worker_died", result={"x": 1})
    again = tasks.requeue(task.id)
    assert (again.state, again.attempt, again.error, again.result) == (TaskState.QUEUED, 2, None, {})
    assert again.fencing_token > task.fencing_token


def test_final_tasks_are_announced_once(tasks: SqlTaskRepository) -> None:
    task = tasks.claim(add(tasks).id)
    assert tasks.unannounced() == []
    done = tasks.finish(task, TaskState.FAILED, error="died")
    assert tasks.unannounced() == [done]
    tasks.mark_announced(task.id)
    assert tasks.unannounced() == []


def test_success_and_model_are_one_transaction(
    tasks: SqlTaskRepository, models: SqlModelRepository, new_model: Callable[..., NewModel]
) -> None:
    task = tasks.claim(add(tasks).id)
    orphan = new_model("orphan", kind="adapter", parent_id="model_gone")
    with pytest.raises(ModelNotFound):
        tasks.finish(task, TaskState.SUCCEEDED, model=orphan)
    assert tasks.find(task.id).state is TaskState.PREPARING
    assert models.list_models() == []
    assert orphan.directory.exists(), "it can be tried again"
    done = tasks.finish(task, TaskState.SUCCEEDED, model=new_model("tuned"))
    assert done.model_id == models.find("tuned").id == tasks.find(task.id).model_id
    models.delete("tuned")
    assert tasks.find(task.id).model_id is None


def test_an_acknowledged_task_outlives_a_kill(tasks: SqlTaskRepository, data_dir: DataDir, engine: Engine) -> None:
    program = """
import os, sys
from pathlib import Path
from terakoya.domain.tasks import TaskKind
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.task_repository import SqlTaskRepository
data_dir = DataDir(Path(sys.argv[1]))
print(SqlTaskRepository(open_database(data_dir), data_dir).add(TaskKind.TRAINING, "run", {}, {}).id, flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", program, data_dir.root], capture_output=True, text=True, check=False)
    queued = tasks.next_queued(TaskKind.TRAINING)
    assert queued is not None
    assert queued.id == killed.stdout.strip()
