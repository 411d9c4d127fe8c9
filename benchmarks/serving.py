"""Real servers on data folders of their own, for the benchmarks that measure what a person sees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from terakoya.storage.files import DataDir

STARTER = "smollm2-135m-instruct-q4_1"
DATASET = "inbox-sample"


@contextmanager
def server(data_dir: Path, **settings: str) -> Iterator[tuple[str, int, float]]:
    """Yield address, pid and the seconds from the command to the first answer of /readyz."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TERAKOYA_")}
    started = time.perf_counter()
    with data_dir.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "terakoya", "serve", "--port", "0"],
            env={**kept, "TERAKOYA_DATA_DIR": str(data_dir), **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        # A killed server's lock, and with it its address, may outlive it for an instant.
        while (found := DataDir(data_dir).running_server()) is None or found.pid != process.pid or not found.url:
            if process.poll() is not None:
                sys.exit(data_dir.with_suffix(".log").read_text())
            time.sleep(0.01)
        httpx.get(f"{found.url}/readyz").raise_for_status()
        yield found.url, process.pid, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()
