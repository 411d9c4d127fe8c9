"""Task rows: the durable queue and the one record of a task's state. Knows no process and no file of a task, only the
rule that a writer with an old fencing token is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.orm import Session

from terakoya.domain.names import did_you_mean
from terakoya.domain.tasks import (
    FINAL_STATES,
    TIME_LIMIT,
    WAITING_STATES,
    NewModel,
    ProcessIdentity,
    Task,
    TaskKind,
    TaskState,
)
from terakoya.exceptions import Conflict, StaleWriter, TaskNotFound
from terakoya.storage.database import reading, writing
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.model_repository import add_model_row, free_name
from terakoya.storage.model_store import StoredContent, place, store_lock
from terakoya.storage.tables import TaskRow

RESUMABLE_STATES = frozenset({TaskState.FAILED, TaskState.CANCELLED, TaskState.PAUSED})


class SqlTaskRepository:
    def __init__(self, engine: Engine, data_dir: DataDir) -> None:
        self._engine = engine
        self._data_dir = data_dir

    def add(
        self, kind: TaskKind, name: str, request: dict[str, Any], resolved: dict[str, Any], *, priority: int = 0
    ) -> Task:
        now = datetime.now(UTC)
        row = TaskRow(
            id=new_id("task"),
            kind=kind,
            name=name,
            state=TaskState.QUEUED,
            request=request,
            resolved=resolved,
            created_at=now,
            queued_at=now,
            priority=priority,
            worked_seconds=0.0,
            attempt=1,
            fencing_token=0,
            result={},
            announced=False,
        )
        with writing(self._engine) as session:
            row.place = _last_place(session) + 1
            session.add(row)
            session.flush()
            return _task(row)

    def find(self, task_id: str) -> Task:
        with reading(self._engine) as session:
            return _task(_find(session, task_id))

    def list_tasks(
        self, *, kind: TaskKind | None = None, states: frozenset[TaskState] | None = None, limit: int = 100
    ) -> Sequence[Task]:
        query = select(TaskRow).order_by(TaskRow.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(TaskRow.kind == kind)
        if states is not None:
            query = query.where(TaskRow.state.in_(states))
        with reading(self._engine) as session:
            return [_task(row) for row in session.scalars(query)]

    def next_queued(self, kind: TaskKind, *, without: frozenset[str] = frozenset()) -> Task | None:
        query = _queued(kind).where(TaskRow.id.not_in(without)).limit(1)
        with reading(self._engine) as session:
            row = session.scalars(query).one_or_none()
            return None if row is None else _task(row)

    def queue(self, kind: TaskKind | None = None) -> Sequence[Task]:
        with reading(self._engine) as session:
            return [_task(row) for row in session.scalars(_queued(kind))]

    def set_priority(self, task_id: str, priority: int) -> Task:
        with writing(self._engine) as session:
            row = _waiting(session, task_id)
            row.priority = priority
            return _task(row)

    def move_to_front(self, task_id: str) -> Task:
        with writing(self._engine) as session:
            row = _waiting(session, task_id)
            if row.state == TaskState.PAUSED:
                raise Conflict(f"the task {task_id!r} is paused, and goes to the end when it is resumed; move it then")
            first = session.scalars(_queued(TaskKind(row.kind)).limit(1)).one_or_none()
            if first is not None and first.id != row.id:
                row.priority, row.place = max(row.priority, first.priority), first.place - 1
            return _task(row)

    def claim(self, task_id: str, *, device: str | None = None) -> Task:
        with writing(self._engine) as session:
            row = _find(session, task_id)
            if row.state != TaskState.QUEUED:
                raise Conflict(f"the task {task_id!r} is {row.state}, not queued")
            row.state = TaskState.PREPARING
            row.device = device
            row.fencing_token += 1
            _disown(row)
            return _task(row)

    def set_owner(self, task: Task, owner: ProcessIdentity) -> Task:
        """Record the process; preparing -> running, while a cancellation asked for meanwhile stays."""
        with writing(self._engine) as session:
            row = _current(session, task)
            row.owner_boot_id, row.owner_pid, row.owner_started_at = owner.boot_id, owner.pid, owner.started_at
            row.started_at = datetime.now(UTC)
            if row.state == TaskState.PREPARING:
                row.state = TaskState.RUNNING
            return _task(row)

    def set_state(self, task: Task, state: TaskState, *, error: str | None = None) -> Task:
        with writing(self._engine) as session:
            row = _current(session, task)
            row.state = state
            row.error = error
            return _task(row)

    def release(self, task: Task) -> Task:
        with writing(self._engine) as session:
            row = _current(session, task)
            row.state = TaskState.QUEUED
            row.fencing_token += 1
            row.started_at = row.device = None
            _disown(row)
            return _task(row)

    def requeue(self, task_id: str) -> Task:
        with writing(self._engine) as session:
            row = _find(session, task_id)
            if row.state not in RESUMABLE_STATES:
                raise Conflict(
                    f"the task {task_id!r} is {row.state}; only a failed, cancelled or paused one can be resumed"
                )
            if row.error_code == TIME_LIMIT:  # whoever resumes it knows, and grants it as much again
                row.worked_seconds = 0.0
            row.place = _last_place(session) + 1
            _begin_next_attempt(row)
            return _task(row)

    def relaunch(self, task: Task, *, worked_seconds: float = 0.0) -> Task:
        with writing(self._engine) as session:
            row = _current(session, task)
            row.worked_seconds += worked_seconds
            _begin_next_attempt(row)
            return _task(row)

    def pause(self, task: Task, *, worked_seconds: float = 0.0) -> Task:
        with writing(self._engine) as session:
            row = _current(session, task)
            row.state = TaskState.PAUSED
            row.fencing_token += 1
            row.worked_seconds += worked_seconds
            row.device = None
            _disown(row)
            return _task(row)

    def finish(
        self,
        task: Task,
        state: TaskState,
        *,
        error: str | None = None,
        error_code: str | None = None,
        result: dict[str, Any] | None = None,
        model: NewModel | None = None,
        worked_seconds: float = 0.0,
    ) -> Task:
        """As the port says. If the model's name was taken meanwhile it is registered under the name with a number
        behind it, and ``result["renamed_from"]`` says so: hours of work are not lost to a name."""
        if model is None:
            return self._finish(task, state, error, error_code, result or {}, None, worked_seconds)
        with store_lock:
            content = place(self._data_dir, model.directory)
            finished = self._finish(task, state, error, error_code, result or {}, (model, content), worked_seconds)
        shutil.rmtree(model.directory, ignore_errors=True)
        return finished

    def _finish(
        self,
        task: Task,
        state: TaskState,
        error: str | None,
        error_code: str | None,
        result: dict[str, Any],
        placed: tuple[NewModel, StoredContent] | None,
        worked_seconds: float,
    ) -> Task:
        with writing(self._engine) as session:
            row = _current(session, task)
            if placed is not None:
                model, content = placed
                name = free_name(session, model.name)
                if name != model.name:
                    result = result | {"renamed_from": model.name, "renamed_to": name}
                add_model_row(session, model, content, name=name, task_id=task.id)
            row.state, row.error, row.error_code, row.result = state, error, error_code, result
            row.finished_at = datetime.now(UTC)
            row.worked_seconds += worked_seconds
            row.announced = False
            _disown(row)
            session.flush()
            session.refresh(row, ["model"])
            return _task(row)

    def unannounced(self) -> Sequence[Task]:
        query = select(TaskRow).where(TaskRow.announced.is_(False), TaskRow.state.in_(FINAL_STATES))
        with reading(self._engine) as session:
            return [_task(row) for row in session.scalars(query.order_by(TaskRow.id))]

    def mark_announced(self, task_id: str) -> None:
        with writing(self._engine) as session:
            _find(session, task_id).announced = True


def _find(session: Session, task_id: str) -> TaskRow:
    row = session.get(TaskRow, task_id)
    if row is None:
        ids = session.scalars(select(TaskRow.id).order_by(TaskRow.id.desc()).limit(50)).all()
        raise TaskNotFound(f"no task {task_id!r}{did_you_mean(task_id, ids)}")
    return row


def _queued(kind: TaskKind | None) -> Select[TaskRow]:
    query = select(TaskRow).where(TaskRow.state == TaskState.QUEUED)
    if kind is not None:
        query = query.where(TaskRow.kind == kind)
    return query.order_by(TaskRow.priority.desc(), TaskRow.place, TaskRow.id)


def _last_place(session: Session) -> int:
    return session.scalar(select(func.max(TaskRow.place))) or 0


def _waiting(session: Session, task_id: str) -> TaskRow:
    """Raises: TaskNotFound; Conflict for a task whose place in the queue is of no consequence any more."""
    row = _find(session, task_id)
    if row.state not in WAITING_STATES:
        raise Conflict(f"the task {task_id!r} is {row.state}; only one that is queued or paused has a place to change")
    return row


def _begin_next_attempt(row: TaskRow) -> None:
    row.state = TaskState.QUEUED
    row.attempt += 1
    row.fencing_token += 1
    row.queued_at = datetime.now(UTC)
    row.started_at = row.finished_at = row.error = row.error_code = row.device = None
    row.result = {}
    row.announced = False
    _disown(row)


def _current(session: Session, task: Task) -> TaskRow:
    """The task's row, for a writer that is still its owner. Raises: StaleWriter."""
    row = _find(session, task.id)
    if row.fencing_token != task.fencing_token:
        raise StaleWriter(f"the task {task.id!r} was launched again: token {task.fencing_token} is stale")
    if TaskState(row.state).is_final:
        raise StaleWriter(f"the task {task.id!r} has already {row.state}")
    return row


def _disown(row: TaskRow) -> None:
    row.owner_boot_id = row.owner_pid = row.owner_started_at = None


def _task(row: TaskRow) -> Task:
    owner = None
    if row.owner_boot_id is not None and row.owner_pid is not None and row.owner_started_at is not None:
        owner = ProcessIdentity(row.owner_boot_id, row.owner_pid, row.owner_started_at)
    return Task(
        id=row.id,
        kind=TaskKind(row.kind),
        name=row.name,
        state=TaskState(row.state),
        request=row.request,
        resolved=row.resolved,
        created_at=row.created_at,
        attempt=row.attempt,
        priority=row.priority,
        worked_seconds=row.worked_seconds,
        device=row.device,
        fencing_token=row.fencing_token,
        owner=owner,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
        error_code=row.error_code,
        model_id=None if row.model is None else row.model.id,
        result=row.result,
    )
