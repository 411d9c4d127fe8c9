"""Any background task: its state, events, log, its place in the queue, and the ways to stop, pause and resume it."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from terakoya.api.dependencies import After, ContainerDep, Limit, Tasks
from terakoya.api.live import serve_events
from terakoya.api.schemas.tasks import CancelRequest, EventList, LogText, OrderRequest, TaskList, TaskView
from terakoya.domain.tasks import TaskKind

router = APIRouter(tags=["tasks"])


@router.get("/api/tasks")
def list_tasks(tasks: Tasks, kind: TaskKind | None = None, limit: Limit = 100) -> TaskList:
    return TaskList(tasks=[TaskView.of(task) for task in tasks.list(kind=kind, limit=limit)])


@router.get("/api/queue")
def list_queue(tasks: Tasks, kind: TaskKind | None = None) -> TaskList:
    """Queued tasks in the order in which they will be started, each kind in slots of its own."""
    return TaskList(tasks=[TaskView.of(task) for task in tasks.queue(kind)])


@router.get("/api/tasks/{task_id}")
def get_task(task_id: str, tasks: Tasks) -> TaskView:
    return TaskView.of(tasks.get(task_id))


@router.patch("/api/tasks/{task_id}")
def order_task(task_id: str, tasks: Tasks, body: OrderRequest) -> TaskView:
    """Change the place of a queued or paused task."""
    if body.priority is None:
        return TaskView.of(tasks.move_to_front(task_id))
    return TaskView.of(tasks.set_priority(task_id, body.priority))


@router.get("/api/tasks/{task_id}/events")
def get_events(task_id: str, tasks: Tasks, after: After = 0, limit: Limit = 1000) -> EventList:
    """The events numbered above ``after``; fewer than ``limit`` means that there are no more yet."""
    return EventList(events=[dict(event) for event in tasks.events(task_id, after=after, limit=limit)])


@router.get("/api/tasks/{task_id}/logs")
def get_logs(task_id: str, tasks: Tasks, tail: Limit = 200) -> LogText:
    """The last lines that the task's process printed."""
    return LogText(text=tasks.logs(task_id, tail=tail))


@router.post("/api/tasks/{task_id}/cancel")
def cancel_task(task_id: str, tasks: Tasks, body: CancelRequest | None = None) -> TaskView:
    return TaskView.of(tasks.cancel(task_id, keep=body is not None and body.keep))


@router.post("/api/tasks/{task_id}/pause")
def pause_task(task_id: str, tasks: Tasks) -> TaskView:
    """Stop at the next step with a checkpoint; the slot is free until it is resumed."""
    return TaskView.of(tasks.pause(task_id))


@router.post("/api/tasks/{task_id}/resume")
def resume_task(task_id: str, tasks: Tasks) -> TaskView:
    return TaskView.of(tasks.resume(task_id))


@router.websocket("/ws/tasks/{task_id}")
async def watch_task(websocket: WebSocket, task_id: str, container: ContainerDep) -> None:
    await serve_events(websocket, container.tasks.get, container.event_log, task_id)
