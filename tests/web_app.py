"""The whole web application over a data folder of its own, for tests that call it without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from terakoya.bootstrap import build_container
from terakoya.config import Settings
from terakoya.web.app import create_app

ROWS = b'{"prompt": "Where is my order?", "completion": "order_status"}\n' * 12


@contextmanager
def web_client(data_dir: Path, *, host: str = "localhost", **settings: Any) -> Iterator[TestClient]:
    """A client on this machine; its background work does not run, so tasks stay queued."""
    container = build_container(Settings(data_dir=data_dir, **settings))
    try:
        client = TestClient(
            create_app(container),
            base_url=f"http://{host}",
            client=("127.0.0.1", 50000),
            raise_server_exceptions=False,
        )
        yield client
    finally:
        client.close()
        container.engine.dispose()
