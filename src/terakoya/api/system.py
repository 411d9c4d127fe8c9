"""Operation: liveness, readiness, what this machine has and lacks, metrics."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from terakoya.api.dependencies import ContainerDep
from terakoya.api.machine import model_server_view, system_view
from terakoya.api.metrics import task_registry
from terakoya.api.schemas.system import Status, SystemView
from terakoya.exceptions import Unavailable

router = APIRouter(tags=["system"])


@router.get("/healthz")
async def get_health() -> Status:
    """Whether the process answers."""
    return Status(status="ok")


@router.get("/readyz")
def get_readiness(request: Request, container: ContainerDep) -> Status:
    """Whether the database answers and tasks are being supervised. Raises: Unavailable."""
    container.tasks.list(limit=1)
    if request.app.state.supervising.done():
        raise Unavailable("the task supervisor is not running; the server's log says why")
    return Status(status="ready")


@router.get("/api/system")
async def get_system(container: ContainerDep) -> SystemView:
    server = await model_server_view(container.model_client)
    return await run_sync(system_view, container.settings, server)


@router.get("/metrics", response_class=PlainTextResponse)
def get_metrics(container: ContainerDep) -> PlainTextResponse:
    body = generate_latest(task_registry(container.tasks))
    return PlainTextResponse(body, media_type=CONTENT_TYPE_LATEST)
