"""Follows a task's events over its WebSocket, and comes back with ``?after=`` when the connection breaks. Knows
nothing of what the events mean, but that each is numbered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from terakoya.client.errors import error_from_body, error_from_envelope
from terakoya.client.transport import Json, Transport
from terakoya.exceptions import Unavailable

PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
ENVELOPE_CLOSE_CODES = range(4400, 4600)
"""4000 + the HTTP status of the error that was sent before."""


def watch_events(
    transport: Transport, task_id: str, *, after: int = 0, give_up_seconds: float = 60.0
) -> Iterator[Json]:
    """Yield every event with ``seq > after`` until the task has ended.

    Raises: the server's error for an unknown task; Unavailable after ``give_up_seconds`` without a connection.
    """
    failures = 0
    lost_at: float | None = None
    while True:
        try:
            for event in _one_connection(transport, task_id, after):
                failures, lost_at = 0, None
                after = int(event.get("seq", after))
                yield event
            return
        except (OSError, TimeoutError, WebSocketException) as error:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > give_up_seconds:
                reason = str(error) or type(error).__name__
                raise Unavailable(
                    f"the connection to {transport.base_url} is lost ({reason}); the task itself goes on: "
                    f"look at it again with `terakoya tasks watch {task_id}`"
                ) from error
            time.sleep(PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS) - 1)])
            failures += 1


def _one_connection(transport: Transport, task_id: str, after: int) -> Iterator[Json]:
    """Yield events until the server closes normally. Raises: WebSocketException, OSError when it breaks."""
    url = f"ws{transport.base_url.removeprefix('http')}/ws/tasks/{task_id}?after={after}"
    # A connection made anew must not read the proxy settings for an address on this machine.
    proxy: Any = True if transport.uses_proxy else None
    try:
        socket = connect(url, additional_headers=transport.headers, proxy=proxy, open_timeout=10, max_size=2**24)
    except InvalidStatus as error:
        if error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        raise error_from_body(error.response.status_code, bytes(error.response.body or b"")) from error
    with socket:
        envelope: Json | None = None
        while True:
            try:
                message = json.loads(socket.recv())
            except ConnectionClosedOK:
                return
            except ConnectionClosed as closed:
                if envelope and closed.rcvd and closed.rcvd.code in ENVELOPE_CLOSE_CODES:
                    raise error_from_envelope(envelope, status=closed.rcvd.code - 4000) from closed
                raise
            if "type" in message:
                yield message
            else:
                envelope = message
