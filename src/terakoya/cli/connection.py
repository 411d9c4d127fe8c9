"""Finds the server a command talks to: TERAKOYA_URL, else the one that has the data folder, else the default port,
else one started for as long as the command runs. Knows no command.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from terakoya.cli.output import remark
from terakoya.cli.settings import read_settings
from terakoya.cli.texts import _
from terakoya.exceptions import Unavailable

if TYPE_CHECKING:
    from terakoya.client.client import Client
    from terakoya.config import Settings
    from terakoya.storage.files import DataDir

STARTING_SECONDS = 60.0


@dataclass(frozen=True)
class Connection:
    client: Client
    is_temporary: bool
    """Whether the server was started for this command and ends with it."""


@contextmanager
def connect() -> Iterator[Connection]:
    """Yield a client of a server that is ready. Raises: Unavailable."""
    from terakoya.client.client import Client
    from terakoya.storage.files import DataDir

    settings = read_settings()
    data_dir = DataDir(settings.data_dir)
    key = _api_key(settings)
    url = _find(settings, data_dir)
    if url is not None:
        with Client(url, key) as client:
            if not os.environ.get("TERAKOYA_URL"):
                _wait_until_ready(client)
            yield Connection(client, is_temporary=False)
        return

    from terakoya.cli.server_process import ServerProcess

    remark(_("No server is running; starting one for this command ..."))
    server = ServerProcess(data_dir)
    try:
        url = server.wait_for_url()
        with Client(url or _require(data_dir), key) as client:
            _wait_until_ready(client)
            yield Connection(client, is_temporary=url is not None)
    finally:
        server.stop()


def _find(settings: Settings, data_dir: DataDir) -> str | None:
    if url := os.environ.get("TERAKOYA_URL"):
        return url
    if data_dir.running_server() is not None:
        return _require(data_dir)
    # With a data folder of its own, a command must not end up in the data of whoever has the default port.
    if "TERAKOYA_DATA_DIR" not in os.environ and settings.port:
        url = f"http://127.0.0.1:{settings.port}"
        if _answers(url):
            remark(_("Using the server at %(url)s.", url=url))
            return url
    return None


def _require(data_dir: DataDir) -> str:
    """Return the address of the server that has the data folder, waiting while it starts."""
    deadline = time.monotonic() + STARTING_SECONDS
    while (running := data_dir.running_server()) is not None and time.monotonic() < deadline:
        if running.url:
            return running.url
        time.sleep(0.1)
    raise Unavailable(f"the server that had the data folder {str(data_dir.root)!r} is gone or does not get ready")


def _answers(url: str) -> bool:
    """Whether a Terakoya server answers there, and not some other program on that port."""
    import httpx

    try:
        answer = httpx.get(f"{url}/healthz", timeout=1.0, trust_env=False)
        return bool(answer.json() == {"status": "ok"})
    except (httpx.TransportError, ValueError):
        return False


def _wait_until_ready(client: Client) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    while not client.is_ready():
        if time.monotonic() > deadline:
            raise Unavailable(f"no server is ready at {client.base_url}; start one with `terakoya serve`")
        time.sleep(0.1)


def _api_key(settings: Settings) -> str | None:
    """TERAKOYA_API_KEY, else the first of the server's own keys where they are set here too."""
    if key := os.environ.get("TERAKOYA_API_KEY"):
        return key
    return settings.api_keys[0].get_secret_value() if settings.api_keys else None
