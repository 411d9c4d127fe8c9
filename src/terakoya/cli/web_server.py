"""Runs the web application in this process: binds the port, announces the address, shuts down in order. Knows
nothing of what the application does.
"""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from terakoya.exceptions import Conflict, InvalidConfig
from terakoya.security.guard import WILDCARD_ADDRESSES

MAX_HEADER_BYTES = 64 * 1024
SHUTDOWN_SECONDS = 5


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises: Conflict if the port is taken; InvalidConfig for an address we cannot have."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidConfig(f"cannot listen on {host!r}: {error.strerror}") from error
    try:
        # A port whose last connections are still closing is free; one that another program listens on is not.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} on {host} is taken by another program; stop that one, or choose another port: "
                f"`make run PORT={port + 1}` or `terakoya serve --port {port + 1}`"
            ) from error
        raise InvalidConfig(f"cannot listen on {host!r}, port {port}: {error.strerror}") from error
    return bound


def address_of(bound: socket.socket, host: str) -> str:
    """Return the URL under which this machine reaches the socket."""
    name = "127.0.0.1" if host in WILDCARD_ADDRESSES else host
    return f"http://{f'[{name}]' if ':' in name else name}:{bound.getsockname()[1]}"


class WebServer(uvicorn.Server):
    """uvicorn with one worker that says when it is ready."""

    def __init__(self, app: Any, *, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # h11 bounds the size of headers while they arrive; httptools does not.
                http="h11",
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                ws="websockets-sansio",
                ws_max_size=64 * 1024,  # browsers only listen
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                server_header=False,
                proxy_headers=False,
                log_config=None,
                access_log=False,
                lifespan="on",
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and not self.should_exit:
            self._on_ready()

    def serve_until_stopped(self, bound: socket.socket, *, exit_on_eof: bool = False) -> bool:
        """Serve until SIGINT or SIGTERM, or until stdin closes. Returns whether it had started."""
        if exit_on_eof:
            threading.Thread(target=self._stop_at_eof, daemon=True).start()
        previous = signal.getsignal(signal.SIGTERM)
        # uvicorn raises the signal again once it has shut down; by then it is only a reason to return.
        signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            self.run(sockets=[bound])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, previous)
        return self.started

    def _stop_at_eof(self) -> None:
        sys.stdin.buffer.read()
        self.should_exit = True
