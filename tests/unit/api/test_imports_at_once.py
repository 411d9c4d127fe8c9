from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from terakoya.bootstrap import build_container
from terakoya.config import Settings
from terakoya.web.app import create_app
from web_app import ROWS


async def test_many_imports_wait_without_a_thread_that_other_requests_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = build_container(Settings(data_dir=tmp_path / "data"))
    sample = container.datasets.list()[0]
    going, most = 0, 0
    counting, opened = threading.Lock(), threading.Event()

    def import_file(*_: Any, **__: Any) -> Any:
        nonlocal going, most
        with counting:
            going += 1
            most = max(most, going)
        opened.wait(30)
        with counting:
            going -= 1
        return sample

    monkeypatch.setattr(container.datasets, "import_file", import_file)
    transport = httpx.ASGITransport(create_app(container), client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
        # More than the forty threads that all blocking routes share.
        imports = [asyncio.create_task(client.put(f"/api/datasets/rows-{n}", content=ROWS)) for n in range(60)]
        while len(list((tmp_path / "data" / "uploads").iterdir())) < 60:  # noqa: ASYNC110  files set no event
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        assert (await client.get("/api/datasets")).status_code == 200
        waited = time.perf_counter() - began
        opened.set()
        answers = await asyncio.gather(*imports)
    container.engine.dispose()

    assert {answer.status_code for answer in answers} == {201}
    assert most == 2
    assert waited < 10
