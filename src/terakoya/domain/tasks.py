"""A task: one long piece of work in a process of its own, and what is known of it. Knows nothing of how
tasks are stored or started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any


class TaskKind(StrEnum):
    TRAINING = "training"
    PULL = "pull"
    EXPORT = "export"
    """Merging an adapter too."""
    INTERPOLATE = "interpolate"
    """Points between the weights before and after a run: scoring them, keeping one."""
    INGEST = "ingest"
    REBUILD = "rebuild"
    EVALUATION = "evaluation"
    """Questions put to a collection, under one configuration or several."""

    @property
    def can_pause(self) -> bool:
        """Whether one that works can be stopped so that it goes on from there later."""
        return self in (TaskKind.TRAINING, TaskKind.INGEST, TaskKind.REBUILD)


class TaskState(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES

    @property
    def is_active(self) -> bool:
        """Whether a process may exist for it."""
        return self in ACTIVE_STATES


CHECKPOINTS = "checkpoints"
"""In a task's directory: what a later attempt goes on from. Gone once the task has succeeded."""
FINAL_STATES = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
MIN_PRIORITY, MAX_PRIORITY = -100, 100
NORMAL_PRIORITY = 0
LIMITS = "limits"
"""Where ``Task.resolved`` holds the task's TaskLimits."""
TIME_LIMIT, OUT_OF_MEMORY = "time_limit", "out_of_memory"
"""Error codes: stopped because it had worked for as long as it may; stopped before memory ran out."""
WAITING_STATES = frozenset({TaskState.QUEUED, TaskState.PAUSED})
UNWANTED_STATES = frozenset({TaskState.PAUSING, TaskState.CANCELLING})
"""A process may be at work that is to end."""
ACTIVE_STATES = frozenset({TaskState.PREPARING, TaskState.RUNNING, TaskState.PAUSING, TaskState.CANCELLING})


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, told from a later one that got the same pid."""

    boot_id: str
    pid: int
    started_at: float
    """As the kernel reports it, on Linux since boot, so that no clock change moves it. Compared for equality only."""


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """How long a task with a process of its own may go on, and how often it is started again when that dies."""

    max_hours: float | None = None
    """Of work, over all attempts; None: no limit."""
    no_progress_minutes: float | None = None
    """Without any sign of life from its process; None: it is waited for."""
    max_restarts: int = 0
    """In a row, without a new checkpoint in between."""

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> TaskLimits:
        """Read what was resolved for a task; one submitted without limits has none."""
        stored = resolved.get(LIMITS) or {}
        return cls(**{name: stored[name] for name in cls.__slots__ if name in stored})


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    kind: TaskKind
    name: str
    state: TaskState
    request: dict[str, Any]
    """As submitted."""
    resolved: dict[str, Any]
    """With every default filled in."""
    created_at: datetime
    attempt: int = 1
    priority: int = NORMAL_PRIORITY
    """The higher is started first; among equals the one that was queued first."""
    worked_seconds: float = 0.0
    """By the processes of its earlier attempts together."""
    device: str | None = None
    """What its process works on, where its kind has devices."""
    fencing_token: int = 0
    """Raised at each launch; a writer with an older token is refused."""
    owner: ProcessIdentity | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    error_code: str | None = None
    model_id: str | None = None
    """The model it registered."""
    result: dict[str, Any] = field(default_factory=dict)
    """What the worker's outcome said besides: effective configuration, headline figures."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a task's process: ``python -m module task_dir``; ``spec`` becomes ``task_dir/spec.json``."""

    module: str
    spec: dict[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables that this process alone is given, and that are written nowhere."""


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model that a finished worker left in ``directory``, to be registered exactly once."""

    name: str
    kind: str
    directory: Path
    parent_id: str | None
    architecture: str
    parameters: int
    license: str
    source: str
    card: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last word of a worker, from ``task_dir/outcome.json`` (written by rename)."""

    status: TaskState
    attempt: int
    error: str | None = None
    error_code: str | None = None
    model: dict[str, Any] | None = None
    """NewModel's fields; ``directory`` relative to the task's directory."""
    result: dict[str, Any] = field(default_factory=dict)
