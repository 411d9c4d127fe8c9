"""What a web process does with the tasks an earlier one left, before it starts any: nothing is lost, run twice or
left "running". Knows nothing of the event loop.
"""

from __future__ import annotations

import signal

import structlog

from terakoya.domain.events import EventType
from terakoya.domain.ports import EventLog, TaskRepository
from terakoya.domain.tasks import ACTIVE_STATES, Task, TaskState
from terakoya.storage.files import DataDir
from terakoya.storage.worker_io import has_begun, read_outcome
from terakoya.tasks.conclusion import announce, conclude
from terakoya.tasks.process import is_alive, signal_group

log = structlog.get_logger(__name__)
_EVERY_ACTIVE = 1_000_000
_CLAIMED = frozenset({TaskState.PREPARING, TaskState.CANCELLING})


def recover(repository: TaskRepository, event_log: EventLog, data_dir: DataDir) -> list[Task]:
    """Conclude tasks whose process is gone, queue again those that never began; return those that still run."""
    for task in repository.unannounced():
        announce(task, repository=repository, event_log=event_log)
    running = []
    for task in repository.list_tasks(states=ACTIVE_STATES, limit=_EVERY_ACTIVE):
        if task.owner is not None and is_alive(task.owner):
            log.info("task_adopted", task_id=task.id, pid=task.owner.pid)
            running.append(task)
        else:
            _settle(task, repository, event_log, data_dir)
    return running


def settle_unsettled(repository: TaskRepository, event_log: EventLog, data_dir: DataDir) -> None:
    """Make good what could not be written when it should have been: an end that was not said, a claim that was not
    given back. For the supervisor between two launches: a claimed task without a process is then nobody's.
    """
    for task in repository.unannounced():
        announce(task, repository=repository, event_log=event_log)
    for task in repository.list_tasks(states=_CLAIMED, limit=_EVERY_ACTIVE):
        if task.owner is None:
            _settle(task, repository, event_log, data_dir)


def _settle(task: Task, repository: TaskRepository, event_log: EventLog, data_dir: DataDir) -> None:
    """Queue a task without a living process again, or conclude it."""
    if _never_began(task, data_dir):
        _queue_again(task, repository, event_log)
        return
    if task.owner is not None:
        signal_group(task.owner, signal.SIGKILL)  # what the dead worker may have left behind
    conclude(task, None, repository=repository, event_log=event_log, data_dir=data_dir)


def _never_began(task: Task, data_dir: DataDir) -> bool:
    """Its worker was still at the gate, or was not started: nothing has been done, so doing it is no repetition."""
    if task.state is TaskState.CANCELLING:
        return False
    if task.owner is None:
        return True
    task_dir = data_dir.task(task.id)
    return not has_begun(task_dir, task.fencing_token) and read_outcome(task_dir, task.attempt) is None


def _queue_again(task: Task, repository: TaskRepository, event_log: EventLog) -> None:
    log.info("task_queued_again", task_id=task.id)
    released = repository.release(task)
    event_log.append(task.id, EventType.STATE, attempt=released.attempt, state=released.state)
