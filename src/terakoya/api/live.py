"""A task's events over a WebSocket: replayed after a number, then as they come. Pulled from the log at the client's
pace, so a slow client costs nothing; one that takes nothing is let go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import WebSocket, WebSocketDisconnect

from terakoya.api.schemas.errors import ErrorEnvelope
from terakoya.domain.ports import EventLog
from terakoya.domain.tasks import Task
from terakoya.exceptions import AppException, InvalidConfig

SEND_TIMEOUT_SECONDS = 10.0
MAX_SEQ = 2**53


def parse_after(value: str) -> int:
    """Return the number of the last event seen. Raises: InvalidConfig."""
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and int(value) <= MAX_SEQ):
        raise InvalidConfig(f"'after' is the seq of the last event seen, 0 or more; got {value[:100]!r}")
    return int(value)


async def serve_events(websocket: WebSocket, find: Callable[[str], Task], log: EventLog, task_id: str) -> None:
    """Accept, then send each event as one JSON message until the task has ended or the client is gone.

    An error is sent as the envelope before the socket is closed with 4000 + its status.
    """
    await websocket.accept()
    try:
        after = parse_after(websocket.query_params.get("after", "0"))
        task = await run_sync(find, task_id)
    except AppException as error:
        envelope = ErrorEnvelope.of(error, websocket.scope["state"]["request_id"])
        await websocket.send_text(envelope.model_dump_json(exclude_none=True))
        await websocket.close(4000 + error.status, error.code)
        return
    async with anyio.create_task_group() as group:
        group.start_soon(_until_gone, websocket, group.cancel_scope)
        await _send_all(websocket, log, task.id, after)
        group.cancel_scope.cancel()


async def _send_all(websocket: WebSocket, log: EventLog, task_id: str, after: int) -> None:
    try:
        async for event in log.follow(task_id, after=after):
            with anyio.fail_after(SEND_TIMEOUT_SECONDS):
                await websocket.send_text(_encode(event))
        await websocket.close(1000)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        # Gone, or not reading: it comes back with ?after= where it stopped.
        return


async def _until_gone(websocket: WebSocket, scope: anyio.CancelScope) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            scope.cancel()
            return


def _encode(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))
