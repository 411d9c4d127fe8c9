"""A Terakoya server that lives as long as one command: starts it as a child, waits until it is ready, stops it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from terakoya.exceptions import Unavailable
from terakoya.storage.files import DataDir, read_tail

READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerProcess:
    """``terakoya serve`` on a free loopback port. It ends when its stdin closes, so it cannot outlive us."""

    def __init__(self, data_dir: DataDir) -> None:
        self._data_dir = data_dir.create()
        self._log_path = data_dir.logs / "command-server.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "terakoya", "serve", "--host", "127.0.0.1", "--port", "0", "--exit-on-eof"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TERAKOYA_DATA_DIR": str(data_dir.root)},
                cwd=Path.cwd(),
                start_new_session=True,  # Ctrl-C is for the command, which then stops the server in order
            )

    def wait_for_url(self) -> str | None:
        """Return the address once it answers; None if another server took the data folder first.

        Raises: Unavailable with the last lines of its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            running = self._data_dir.running_server()
            if running is not None and running.url and running.pid == self._process.pid:
                return running.url
            if self._process.poll() is not None:
                if running is not None:
                    return None
                break
            time.sleep(0.05)
        self.stop()
        raise Unavailable(f"the server did not start; its last words:\n{read_tail(self._log_path, lines=15)}")

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not. Training processes are not its to take along."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        for insist in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                insist()
        self._process.wait()
