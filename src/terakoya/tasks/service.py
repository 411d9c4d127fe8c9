"""Background work as the rest of the application sees it: submit, look, cancel, resume. Changes rows and says so in
the event log; the supervisor does the rest when woken. Knows no process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from terakoya.domain.events import Event, EventType
from terakoya.domain.ports import EventLog, TaskRepository
from terakoya.domain.tasks import Task, TaskKind, TaskState
from terakoya.exceptions import Conflict, StaleWriter
from terakoya.storage.control import Action, request_action, withdraw_action
from terakoya.storage.files import DataDir, read_tail
from terakoya.tasks.conclusion import OUTPUT_FILE, announce

_WAITING = frozenset({TaskState.QUEUED, TaskState.PAUSED})


class TaskService:
    """The TaskQueue, and the views of tasks that routes show."""

    def __init__(self, repository: TaskRepository, event_log: EventLog, data_dir: DataDir) -> None:
        self._repository = repository
        self._event_log = event_log
        self._data_dir = data_dir
        self._wake: Callable[[], None] | None = None

    def on_change(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called after each change; it must be callable from any thread (Supervisor.wake)."""
        self._wake = wake

    def submit(self, kind: TaskKind, *, name: str, request: dict[str, Any], resolved: dict[str, Any]) -> Task:
        task = self._repository.add(kind, name, request, resolved)
        self._changed(task)
        return task

    def get(self, task_id: str) -> Task:
        """Raises: TaskNotFound."""
        return self._repository.find(task_id)

    def list(self, *, kind: TaskKind | None = None, limit: int = 100) -> Sequence[Task]:
        """Newest first."""
        return self._repository.list_tasks(kind=kind, limit=limit)

    def events(self, task_id: str, *, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        """Raises: TaskNotFound."""
        return self._event_log.read(self.get(task_id).id, after=after, limit=limit)

    def follow(self, task_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """As EventLog.follow; the caller has made sure by ``get`` that the task exists."""
        return self._event_log.follow(task_id, after=after)

    def logs(self, task_id: str, *, tail: int = 200) -> str:
        """The last lines the process wrote. Raises: TaskNotFound."""
        return read_tail(self._data_dir.task(self.get(task_id).id) / OUTPUT_FILE, lines=tail)

    def cancel(self, task_id: str, *, keep: bool = False) -> Task:
        while True:
            task = self.get(task_id)
            try:
                return self._cancel(task, keep=keep)
            except StaleWriter:
                continue  # it was launched or finished between reading and writing: look again

    def resume(self, task_id: str) -> Task:
        task = self.get(task_id)
        if task.state.is_final or task.state is TaskState.PAUSED:
            # Before it is queued: a moment later the next attempt may look for both.
            withdraw_action(self._data_dir.task(task_id))
        task = self._repository.requeue(task_id)
        self._changed(task)
        return task

    def _cancel(self, task: Task, *, keep: bool) -> Task:
        if task.state.is_final:
            raise Conflict(f"the task {task.id!r} has already {_PAST[task.state]}")
        if task.state in _WAITING:
            cancelled = self._repository.finish(task, TaskState.CANCELLED)
            announce(cancelled, repository=self._repository, event_log=self._event_log)
            return cancelled
        if task.state is TaskState.CANCELLING:
            if keep:
                raise Conflict(f"the task {task.id!r} is already being cancelled; nothing of it is kept")
            return task
        if keep:
            return self._ask_to_finish(task)
        cancelling = self._repository.set_state(task, TaskState.CANCELLING)
        self._changed(cancelling)
        return cancelling

    def _ask_to_finish(self, task: Task) -> Task:
        """It goes on running, to evaluate and save, for as long as that takes; a plain cancel still stops it."""
        request_action(self._data_dir.task(task.id), Action.FINISH)
        message = "asked to stop training now, evaluate and keep the model"
        self._event_log.append(task.id, EventType.LOG, attempt=task.attempt, message=message)
        return task

    def _changed(self, task: Task) -> None:
        self._event_log.append(task.id, EventType.STATE, attempt=task.attempt, state=task.state)
        if self._wake is not None:
            self._wake()


_PAST = {TaskState.SUCCEEDED: "succeeded", TaskState.FAILED: "failed", TaskState.CANCELLED: "been cancelled"}
