"""Tasks and training runs as clients see them; the process that works on one is not shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from terakoya.domain.tasks import MAX_PRIORITY, MIN_PRIORITY, Task, TaskKind, TaskState


class TaskView(BaseModel):
    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    id: str
    kind: TaskKind
    name: str
    state: TaskState
    request: dict[str, Any]
    resolved: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    priority: int
    worked_seconds: float
    """By the processes of earlier attempts; of an ended task by all of them."""
    device: str | None
    error: str | None
    error_code: str | None
    model_id: str | None
    result: dict[str, Any]

    @classmethod
    def of(cls, task: Task) -> TaskView:
        return cls.model_validate(task)


class RunView(TaskView):
    report: dict[str, Any] | None = None
    """The report card, once the run has one."""

    @classmethod
    def with_report(cls, task: Task, report: dict[str, Any] | None) -> RunView:
        return cls.model_validate(task).model_copy(update={"report": report})


class TaskList(BaseModel):
    tasks: list[TaskView]


class RunList(BaseModel):
    runs: list[RunView]


class TaskAccepted(BaseModel):
    task_id: str


class CancelRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keep: bool = Field(default=False, description="training: stop now, but evaluate and register what was learned")


class OrderRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, ge=MIN_PRIORITY, le=MAX_PRIORITY)
    """The higher starts first; among equals the one that was queued first."""
    front: bool = Field(default=False, description="make it the next of its kind to start")

    @model_validator(mode="after")
    def _one_of_them(self) -> OrderRequest:
        if (self.priority is not None) == self.front:
            raise ValueError("give either a priority or front: true")
        return self


class EventList(BaseModel):
    events: list[dict[str, Any]]


class LogText(BaseModel):
    text: str
