"""Background work as the rest of the application sees it: submit, look, order, cancel, pause, resume. Changes rows and
says so in the event log; the supervisor does the rest when woken. Knows no process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from terakoya.domain.events import Event, EventType
from terakoya.domain.ports import EventLog, TaskRepository
from terakoya.domain.tasks import WAITING_STATES, Task, TaskKind, TaskState
from terakoya.exceptions import Conflict, StaleWriter
from terakoya.storage.control import Action, request_action, withdraw_action
from terakoya.storage.files import DataDir, read_tail
from terakoya.tasks.conclusion import OUTPUT_FILE, announce, say_paused


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

    def submit(
        self, kind: TaskKind, *, name: str, request: dict[str, Any], resolved: dict[str, Any], priority: int = 0
    ) -> Task:
        task = self._repository.add(kind, name, request, resolved, priority=priority)
        self._changed(task)
        return task

    def get(self, task_id: str) -> Task:
        """Raises: TaskNotFound."""
        return self._repository.find(task_id)

    def list(self, *, kind: TaskKind | None = None, limit: int = 100) -> Sequence[Task]:
        """Newest first."""
        return self._repository.list_tasks(kind=kind, limit=limit)

    def queue(self, kind: TaskKind | None = None) -> Sequence[Task]:
        """Queued tasks in the order in which they will be started."""
        return self._repository.queue(kind)

    def set_priority(self, task_id: str, priority: int) -> Task:
        """Raises: TaskNotFound; Conflict unless it is queued or paused."""
        return self._woken(self._repository.set_priority(task_id, priority))

    def move_to_front(self, task_id: str) -> Task:
        """Raises: TaskNotFound; Conflict unless it is queued."""
        return self._woken(self._repository.move_to_front(task_id))

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

    def pause(self, task_id: str) -> Task:
        """Hold a task: one that waits keeps waiting, one that works stops at its next step, its slot then free.

        Raises: TaskNotFound; Conflict if it has ended, is being cancelled, or is of a kind that cannot go on later.
        """
        while True:
            task = self.get(task_id)
            try:
                return self._pause(task)
            except StaleWriter:
                continue

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
        if keep and task.kind is not TaskKind.TRAINING:
            raise Conflict(f"a {task.kind} task has nothing to keep half-way; cancel it without 'keep'")
        if task.state in WAITING_STATES:
            if keep and (task.attempt > 1 or task.state is TaskState.PAUSED):
                raise Conflict(f"the task {task.id!r} is {task.state} and evaluates nothing; resume it, then keep it")
            cancelled = self._repository.finish(task, TaskState.CANCELLED)
            announce(cancelled, repository=self._repository, event_log=self._event_log)
            return self._woken(cancelled)  # it may have rested on a device
        if task.state is TaskState.CANCELLING:
            if keep:
                raise Conflict(f"the task {task.id!r} is already being cancelled; nothing of it is kept")
            return task
        if keep:
            return self._ask_to_finish(task)
        cancelling = self._repository.set_state(task, TaskState.CANCELLING)
        self._changed(cancelling)
        return cancelling

    def _pause(self, task: Task) -> Task:
        if task.state.is_final:
            raise Conflict(f"the task {task.id!r} has already {_PAST[task.state]}")
        if task.state in (TaskState.PAUSED, TaskState.PAUSING):
            return task
        if task.state is TaskState.CANCELLING:
            raise Conflict(f"the task {task.id!r} is already being cancelled; resume it once it is")
        if task.state is TaskState.QUEUED:
            paused = self._repository.pause(task)
            say_paused(paused, self._event_log)
            return self._woken(paused)
        if not task.kind.can_pause:
            raise Conflict(
                f"a {task.kind} task that has begun cannot be paused; cancel it, and resume it to begin anew"
            )
        pausing = self._repository.set_state(task, TaskState.PAUSING)
        self._changed(pausing)
        return pausing

    def _ask_to_finish(self, task: Task) -> Task:
        """It goes on running, to evaluate and save, for as long as that takes; a plain cancel still stops it."""
        request_action(self._data_dir.task(task.id), Action.FINISH)
        message = "asked to stop training now, evaluate and keep the model"
        self._event_log.append(task.id, EventType.LOG, attempt=task.attempt, message=message)
        return task

    def _changed(self, task: Task) -> None:
        self._event_log.append(task.id, EventType.STATE, attempt=task.attempt, state=task.state)
        self._woken(task)

    def _woken(self, task: Task) -> Task:
        if self._wake is not None:
            self._wake()
        return task


_PAST = {TaskState.SUCCEEDED: "succeeded", TaskState.FAILED: "failed", TaskState.CANCELLED: "been cancelled"}
