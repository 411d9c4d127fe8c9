"""The end of a task: what its process left is read, the final state and the model are committed, and the end is said
in the event log. Doing it twice does nothing the second time. Knows no process.
"""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path

import structlog

from terakoya.domain.events import EventType
from terakoya.domain.ports import EventLog, TaskRepository
from terakoya.domain.tasks import CHECKPOINTS, NewModel, Outcome, Task, TaskState
from terakoya.exceptions import AppException, StaleWriter, StorageFull, Unavailable
from terakoya.storage.files import DataDir, read_tail
from terakoya.storage.worker_io import DISK_WAS_FULL, model_of, read_outcome

log = structlog.get_logger(__name__)
OUTPUT_FILE = "output.log"
_LAST_LINES = 20
_LAST_CHARACTERS = 4000
_announcing = threading.Lock()
"""A cancelled waiting task is announced by the thread that cancelled it, all others by the supervisor's."""


def conclude(
    task: Task, exit_code: int | None, *, repository: TaskRepository, event_log: EventLog, data_dir: DataDir
) -> Task:
    """Finish a task whose process has ended; ``exit_code`` None if nobody was told. One that is finished already,
    its end not said for want of space, say, is announced.

    Raises: StaleWriter if it was finished or launched again meanwhile; StorageFull, Unavailable: try again later.
    """
    if task.state.is_final:
        announce(task, repository=repository, event_log=event_log)
        return task
    task_dir = data_dir.task(task.id)
    try:
        outcome = read_outcome(task_dir, task.attempt) or _without_outcome(task, task_dir, exit_code)
        finished = _finish(repository, task, outcome, model_of(outcome, task_dir))
    except (StaleWriter, StorageFull, Unavailable):
        raise
    except AppException as error:  # its model cannot be registered: unsafe or missing files, a parent that is gone
        finished = repository.finish(task, TaskState.FAILED, error=str(error), error_code=error.code)
    except Exception as error:
        log.exception("conclusion_failed", task_id=task.id)
        message = f"what the {task.kind} process left cannot be used: {type(error).__name__}: {error}"
        finished = repository.finish(task, TaskState.FAILED, error=message, error_code="internal_error")
    if finished.state is TaskState.SUCCEEDED:  # all others may be resumed
        shutil.rmtree(task_dir / CHECKPOINTS, ignore_errors=True)
    announce(finished, repository=repository, event_log=event_log)
    return finished


def fail(task: Task, error: str, code: str, *, repository: TaskRepository, event_log: EventLog) -> Task:
    """Finish a task that could not be started."""
    finished = repository.finish(task, TaskState.FAILED, error=error, error_code=code)
    announce(finished, repository=repository, event_log=event_log)
    return finished


def announce(task: Task, *, repository: TaskRepository, event_log: EventLog) -> None:
    """Append the ``finished`` event of a final task, once."""
    with _announcing:
        said = [event for event in event_log.read(task.id) if event["type"] == EventType.FINISHED]
        if not said or said[-1]["attempt"] != task.attempt:
            if "renamed_to" in task.result:
                message = f"the name {task.result['renamed_from']!r} was taken; saved as {task.result['renamed_to']!r}"
                event_log.append(task.id, EventType.WARNING, attempt=task.attempt, code="name_taken", message=message)
            error = {"error": task.error, "error_code": task.error_code} if task.error is not None else {}
            model = {"model_id": task.model_id} if task.model_id is not None else {}
            event_log.append(task.id, EventType.STATE, attempt=task.attempt, state=task.state, **error)
            event_log.append(task.id, EventType.FINISHED, attempt=task.attempt, status=task.state, **error, **model)
        repository.mark_announced(task.id)


def _finish(repository: TaskRepository, task: Task, outcome: Outcome, model: NewModel | None) -> Task:
    return repository.finish(
        task,
        outcome.status,
        error=outcome.error,
        error_code=outcome.error_code,
        result=outcome.result,
        model=model if outcome.status is TaskState.SUCCEEDED else None,
    )


def _without_outcome(task: Task, task_dir: Path, exit_code: int | None) -> Outcome:
    if task.state is TaskState.CANCELLING:
        return Outcome(TaskState.CANCELLED, task.attempt)
    message = _obituary(task, exit_code, read_tail(task_dir / OUTPUT_FILE, lines=_LAST_LINES))
    return Outcome(TaskState.FAILED, task.attempt, error=message, error_code="worker_died")


def _obituary(task: Task, exit_code: int | None, last_lines: str) -> str:
    if exit_code is None:
        how = "how is known only to the server that started it"
    elif exit_code == -signal.SIGKILL:
        how = "signal 9: killed, often because memory ran out"
    elif exit_code == DISK_WAS_FULL:
        how = "the disk was full; free some space and resume it"
    elif exit_code < 0:
        how = f"signal {-exit_code}"
    else:
        how = f"exit code {exit_code}"
    if not last_lines:
        return f"the {task.kind} process died ({how}); its log is empty"
    return f"the {task.kind} process died ({how}); last log lines:\n{last_lines[-_LAST_CHARACTERS:]}"
