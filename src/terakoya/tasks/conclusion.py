"""What becomes of a task whose process has ended: final with its model committed, paused, or, if the process died,
queued for another try from its newest checkpoint. It is said in the event log. Doing it twice does nothing the second
time. Knows no process.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import threading
from pathlib import Path

import structlog

from terakoya.domain.events import RESTARTED, EventType
from terakoya.domain.ports import EventLog, TaskRepository
from terakoya.domain.tasks import (
    CHECKPOINTS,
    OUT_OF_MEMORY,
    NewModel,
    Outcome,
    Task,
    TaskLimits,
    TaskState,
)
from terakoya.exceptions import AppException, StaleWriter, StorageFull, Unavailable
from terakoya.storage.control import reason_to_stop
from terakoya.storage.files import DataDir, read_tail
from terakoya.storage.worker_io import DISK_WAS_FULL, model_of, read_outcome
from terakoya.tasks.deaths import pause_before_restart, restarts_in_a_row

log = structlog.get_logger(__name__)
OUTPUT_FILE = "output.log"
DIED = "worker_died"
_DEATHS = frozenset({DIED, OUT_OF_MEMORY})
"""Error codes of ends that another try from the last checkpoint may not meet again."""
_LAST_LINES = 20
_LAST_CHARACTERS = 4000
_announcing = threading.Lock()
"""A cancelled waiting task is announced by the thread that cancelled it, all others by the supervisor's."""


def conclude(
    task: Task,
    exit_code: int | None,
    *,
    repository: TaskRepository,
    event_log: EventLog,
    data_dir: DataDir,
    worked_seconds: float = 0.0,
    why: str | None = None,
    restart_pause_seconds: float = 0.0,
) -> Task:
    """Finish, pause or queue again a task whose process has ended; ``exit_code`` None if nobody was told. One that is
    finished already, its end not said for want of space, say, is announced.

    ``worked_seconds``: by this process; ``why``: it was killed; ``restart_pause_seconds``: before its first next try.

    Raises: StaleWriter if it was finished or launched again meanwhile; StorageFull, Unavailable: try again later.
    """
    if task.state.is_final:
        announce(task, repository=repository, event_log=event_log)
        return task
    if task.state is TaskState.PAUSED:
        say_paused(task, event_log)
        return task
    task_dir = data_dir.task(task.id)
    try:
        outcome = _outcome(task, task_dir, exit_code, why)
        if outcome.status is TaskState.PAUSED:
            paused = repository.pause(task, worked_seconds=worked_seconds)
            say_paused(paused, event_log)
            return paused
        if _is_death(task, outcome):
            deaths = 1 + restarts_in_a_row(event_log.read(task.id))
            if deaths <= TaskLimits.of(task.resolved).max_restarts:
                pause_seconds = pause_before_restart(deaths, first_seconds=restart_pause_seconds)
                _say_restart(task, outcome, deaths, pause_seconds, event_log)
                return queue_again(repository.relaunch(task, worked_seconds=worked_seconds), event_log)
            outcome = _given_up(outcome, deaths)
        finished = _finish(repository, task, outcome, model_of(outcome, task_dir), worked_seconds)
    except (StaleWriter, StorageFull, Unavailable):
        raise
    except AppException as error:  # its model cannot be registered: unsafe or missing files, a parent that is gone
        finished = repository.finish(
            task, TaskState.FAILED, error=str(error), error_code=error.code, worked_seconds=worked_seconds
        )
    except Exception as error:
        log.exception("conclusion_failed", task_id=task.id)
        message = f"what the {task.kind} process left cannot be used: {type(error).__name__}: {error}"
        finished = repository.finish(
            task, TaskState.FAILED, error=message, error_code="internal_error", worked_seconds=worked_seconds
        )
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


def say_paused(task: Task, event_log: EventLog) -> None:
    """Append the state of a paused task, once."""
    states = [event for event in event_log.read(task.id) if event["type"] == EventType.STATE]
    if not states or states[-1]["state"] != TaskState.PAUSED:
        event_log.append(task.id, EventType.STATE, attempt=task.attempt, state=task.state)


def queue_again(queued: Task, event_log: EventLog) -> Task:
    event_log.append(queued.id, EventType.STATE, attempt=queued.attempt, state=queued.state)
    return queued


def _finish(
    repository: TaskRepository, task: Task, outcome: Outcome, model: NewModel | None, worked_seconds: float
) -> Task:
    return repository.finish(
        task,
        outcome.status,
        error=outcome.error,
        error_code=outcome.error_code,
        result=outcome.result,
        model=model if outcome.status is TaskState.SUCCEEDED else None,
        worked_seconds=worked_seconds,
    )


def _outcome(task: Task, task_dir: Path, exit_code: int | None, why: str | None) -> Outcome:
    """Return what the worker said, or what its end means, in the light of what was asked of it."""
    said = read_outcome(task_dir, task.attempt)
    if said is not None and said.status in (TaskState.SUCCEEDED, TaskState.FAILED):
        return said
    if task.state is TaskState.CANCELLING:
        return Outcome(TaskState.CANCELLED, task.attempt)
    if (reason := reason_to_stop(task_dir)) is not None:
        return Outcome(TaskState.FAILED, task.attempt, error=reason[0], error_code=reason[1])
    if said is not None:
        return said
    if task.state is TaskState.PAUSING:
        return Outcome(TaskState.PAUSED, task.attempt)
    message = _obituary(task, exit_code, why, read_tail(task_dir / OUTPUT_FILE, lines=_LAST_LINES))
    code = StorageFull.code if exit_code == DISK_WAS_FULL else DIED
    return Outcome(TaskState.FAILED, task.attempt, error=message, error_code=code)


def _is_death(task: Task, outcome: Outcome) -> bool:
    """Whether the process did not end of its own will, and nobody wanted it to end."""
    return outcome.error_code in _DEATHS and task.state in (TaskState.PREPARING, TaskState.RUNNING)


def _say_restart(task: Task, outcome: Outcome, deaths: int, pause_seconds: float, event_log: EventLog) -> None:
    reason = str(outcome.error)
    limit = TaskLimits.of(task.resolved).max_restarts
    when = f"in {pause_seconds:g} seconds" if pause_seconds else "at once"
    event_log.append(
        task.id,
        EventType.WARNING,
        attempt=task.attempt,
        code=RESTARTED,
        message=f"{reason.partition(chr(10))[0]}\nIt goes on from its newest checkpoint {when} "
        f"(restart {deaths} of at most {limit} in a row without a new one).",
        reason=reason,
        error_code=outcome.error_code,
        restart=deaths,
        max_restarts=limit,
        pause_seconds=pause_seconds,
    )


def _given_up(outcome: Outcome, deaths: int) -> Outcome:
    if deaths == 1:  # it was to be started no second time
        return outcome
    error = f"it died {deaths} times in a row without a new checkpoint in between; the last time: {outcome.error}"
    return dataclasses.replace(outcome, error=error)


def _obituary(task: Task, exit_code: int | None, why: str | None, last_lines: str) -> str:
    if why is not None:
        how = why
    elif exit_code is None:
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
