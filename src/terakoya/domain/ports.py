"""The ports through which business logic reaches storage and background work. Implementations live in
``storage/`` and ``tasks/``; ``bootstrap.py`` joins them.

All methods are synchronous and thread-safe: routes call them from worker threads, never from the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from terakoya.domain.datasets import DatasetInfo
from terakoya.domain.events import Event, Observer
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelMarks
from terakoya.domain.tasks import Launch, NewModel, ProcessIdentity, Task, TaskKind, TaskState


class ModelRepository(Protocol):
    """Models by id or name. ``load_model`` verifies; a loader in ``models/`` turns the artifact into a module."""

    def list_models(self) -> Sequence[ModelInfo]:
        """Newest first."""
        ...

    def find(self, id_or_name: str) -> ModelInfo:
        """Raises: ModelNotFound, with close names."""
        ...

    def load_model(self, id_or_name: str) -> ModelArtifact:
        """Return the artifact after checking every file's size and hash against its manifest, its base included.

        Raises: ModelNotFound; ModelLoadError if a file is missing or changed.
        """
        ...

    def save_model(self, model: NewModel, *, task_id: str | None = None) -> ModelInfo:
        """Move ``model.directory`` into the store under its content hash and register it, once per ``task_id``.

        Raises: Conflict if the name is taken; UnsafeArtifact if a file is neither safetensors, JSON nor text.
        """
        ...

    def mark(self, id_or_name: str, marks: ModelMarks) -> ModelInfo:
        """Keep what people say of the model. Raises: ModelNotFound."""
        ...

    def delete(self, id_or_name: str) -> None:
        """Raises: ModelNotFound; Conflict if another model is built on it or an unfinished task uses it."""
        ...


class DatasetRepository(Protocol):
    def list_datasets(self) -> Sequence[DatasetInfo]: ...

    def find(self, id_or_name: str) -> DatasetInfo:
        """Raises: DatasetNotFound."""
        ...

    def rows_path(self, id_or_name: str) -> Path:
        """The normalised rows, as ``data.examples`` describes them."""
        ...

    def report(self, id_or_name: str) -> dict[str, Any]:
        """What the import found. Raises: DatasetNotFound; NotFound for a data set that was imported without."""
        ...

    def save(self, info: DatasetInfo, rows: Path, report: Mapping[str, Any]) -> DatasetInfo:
        """Move ``rows`` into the store and register it durably. Raises: Conflict if the name is taken."""
        ...

    def delete(self, id_or_name: str) -> None:
        """Raises: DatasetNotFound; Conflict if an unfinished task uses it."""
        ...


class TaskRepository(Protocol):
    """Task rows. Every write after the launch names the fencing token and is refused when it is stale."""

    def add(
        self, kind: TaskKind, name: str, request: dict[str, Any], resolved: dict[str, Any], *, priority: int = 0
    ) -> Task: ...

    def find(self, task_id: str) -> Task:
        """Raises: TaskNotFound."""
        ...

    def list_tasks(
        self, *, kind: TaskKind | None = None, states: frozenset[TaskState] | None = None, limit: int = 100
    ) -> Sequence[Task]:
        """Newest first."""
        ...

    def next_queued(self, kind: TaskKind, *, without: frozenset[str] = frozenset()) -> Task | None:
        """The first of ``queue`` that is not among ``without``."""
        ...

    def queue(self, kind: TaskKind | None = None) -> Sequence[Task]:
        """Queued tasks in the order in which they will be started: by priority, then by place."""
        ...

    def set_priority(self, task_id: str, priority: int) -> Task:
        """Raises: TaskNotFound; Conflict unless it is queued or paused."""
        ...

    def move_to_front(self, task_id: str) -> Task:
        """Make it the first of its kind, with the highest priority there is. Raises: TaskNotFound, Conflict."""
        ...

    def claim(self, task_id: str, *, device: str | None = None) -> Task:
        """queued -> preparing with a new fencing token. Raises: Conflict if it is not queued any more."""
        ...

    def set_owner(self, task: Task, owner: ProcessIdentity) -> Task: ...

    def set_state(self, task: Task, state: TaskState, *, error: str | None = None) -> Task:
        """Raises: Conflict if the token is stale."""
        ...

    def release(self, task: Task) -> Task:
        """A claimed task whose process never began -> queued again, same attempt. Raises: StaleWriter."""
        ...

    def requeue(self, task_id: str) -> Task:
        """A failed, cancelled or paused task -> queued with the next attempt number, behind its equals."""
        ...

    def relaunch(self, task: Task, *, worked_seconds: float = 0.0) -> Task:
        """A task whose process died -> queued with the next attempt number, in its old place. Raises: StaleWriter."""
        ...

    def pause(self, task: Task, *, worked_seconds: float = 0.0) -> Task:
        """A task without a process (any more) -> paused. Raises: StaleWriter."""
        ...

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
        """Set the final state and register the model in one transaction. Raises: Conflict if the token is stale."""
        ...

    def unannounced(self) -> Sequence[Task]:
        """Final tasks whose ``finished`` event may not have been appended yet."""
        ...

    def mark_announced(self, task_id: str) -> None: ...


class EventLog(Protocol):
    """One append-only numbered log a task. Several processes append; ``seq`` is the line number."""

    def append(self, task_id: str, type: str, *, attempt: int, **fields: Any) -> None: ...

    def read(self, task_id: str, *, after: int = 0, limit: int | None = None) -> Sequence[Event]: ...

    def follow(self, task_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Replay what is there, then wait for more; ends after the ``finished`` event of the newest attempt."""
        ...


class TaskQueue(Protocol):
    """What services see of background work."""

    def submit(
        self, kind: TaskKind, *, name: str, request: dict[str, Any], resolved: dict[str, Any], priority: int = 0
    ) -> Task:
        """Store the task durably and wake the supervisor; returns at once."""
        ...

    def cancel(self, task_id: str, *, keep: bool = False) -> Task:
        """Ask it to stop. ``keep``: a training run stops at the next step but is evaluated and registered.

        Raises: TaskNotFound; Conflict if it has already finished.
        """
        ...

    def resume(self, task_id: str) -> Task:
        """Queue a failed, cancelled or paused task again from its newest checkpoint. Raises: TaskNotFound, Conflict."""
        ...


class InlineWork(Protocol):
    """A task that the web process does itself, on its event loop, all that blocks in threads or children.

    It can be stopped between any two awaits, by cancellation or by the end of the process, and is then begun anew
    under the same attempt: each of its steps must be safe to repeat.
    """

    async def __call__(self, task: Task, observer: Observer) -> dict[str, Any]:
        """Return what the finished task's ``result`` holds. Raises: AppException, which fails the task."""
        ...


class TaskPlanner(Protocol):
    """Turns a claimed task of one kind into the process to start; one per TaskKind, from ``bootstrap``."""

    def __call__(self, task: Task, task_dir: Path) -> Launch:
        """Raises: AppException when what the task names is gone; the task then fails with that message."""
        ...
