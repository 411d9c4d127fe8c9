from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from web_app import web_client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with web_client(tmp_path_factory.mktemp("web") / "data") as client:
        yield client
