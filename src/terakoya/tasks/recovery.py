"""What a web process does with the tasks an earlier one left, before it starts any: nothing is lost, run twice or
left "running". Knows nothing of the event loop.
"""

from __future__ import annotations

import signal

import structlog

from terakoya.domain.events import INTERRUPTED, EventType
from terakoya.domain.ports import EventLog, TaskRepository
from terakoya.domain.tasks import ACTIVE_STATES, UNWANTED_STATES, Task, TaskKind, TaskState
from terakoya.storage.files import DataDir
from terakoya.storage.worker_io import has_begun, read_outcome
from terakoya.tasks.conclusion import announce, conclude, fail, queue_again, say_paused
from terakoya.tasks.deaths import interruptions_in_a_row, is_waiting
from terakoya.tasks.process import is_alive, signal_group

log = structlog.get_logger(__name__)
_EVERY_ACTIVE = 1_000_000
MAX_DEATHS = 10
"""So often in a row the server may end at one and the same place of a task of its own, if the task is at work there;
then the task is the reason."""
_CLAIMED = frozenset({TaskState.PREPARING, TaskState.PAUSING, TaskState.CANCELLING})


def recover(
    repository: TaskRepository, event_log: EventLog, data_dir: DataDir, *, inline: frozenset[TaskKind] = frozenset()
) -> list[Task]:
    """Conclude tasks whose process is gone, queue again those that never began; return those that still run.

    ``inline``: kinds that a web process does itself. Whatever their rows say, nobody works at them now.
    """
    for task in repository.unannounced():
        announce(task, repository=repository, event_log=event_log)
    for task in repository.list_tasks(states=frozenset({TaskState.PAUSED}), limit=_EVERY_ACTIVE):
        say_paused(task, event_log)
    running = []
    for task in repository.list_tasks(states=ACTIVE_STATES, limit=_EVERY_ACTIVE):
        if task.kind in inline:
            _take_up(task, repository, event_log)
        elif task.owner is not None and is_alive(task.owner):
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


def _take_up(task: Task, repository: TaskRepository, event_log: EventLog) -> None:
    """Queue a task that an earlier web process did itself again, unless it was to be stopped, or keeps killing us."""
    if task.state is TaskState.CANCELLING:
        announce(repository.finish(task, TaskState.CANCELLED), repository=repository, event_log=event_log)
        return
    if task.state is TaskState.PAUSING:
        say_paused(repository.pause(task), event_log)
        return
    if task.owner is not None:
        events = event_log.read(task.id)
        deaths = interruptions_in_a_row(events, task.attempt) + (not is_waiting(events, task.attempt))
        if deaths >= MAX_DEATHS:
            text = f"the server ended {deaths} times at the same place of this {task.kind} task; resume it to try again"
            fail(task, text, "server_ended", repository=repository, event_log=event_log)
            return
        message = "the server ended during this task, which goes on now"
        event_log.append(task.id, EventType.WARNING, attempt=task.attempt, code=INTERRUPTED, message=message)
    _queue_again(task, repository, event_log)


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
    if task.state in UNWANTED_STATES:
        return False
    if task.owner is None:
        return True
    task_dir = data_dir.task(task.id)
    return not has_begun(task_dir, task.fencing_token) and read_outcome(task_dir, task.attempt) is None


def _queue_again(task: Task, repository: TaskRepository, event_log: EventLog) -> None:
    log.info("task_queued_again", task_id=task.id)
    queue_again(repository.release(task), event_log)
