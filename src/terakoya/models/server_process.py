"""The model server as a child process: starting it, knowing whether it lives, its last words, stopping it. Calls
block; the client makes them from threads. Knows nothing of what is said over the socket.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from terakoya.exceptions import Unavailable
from terakoya.security.environment import child_environment

_MODULE = "terakoya.processes.serve"
_MAX_SOCKET_PATH_BYTES = 100
"""The kernel's limit is 108 on Linux and 104 on macOS."""
_LOG_LIMIT_BYTES = 4 << 20
_TAIL_LINES = 15


class ModelServerProcess:
    def __init__(
        self,
        socket_path: Path,
        log_path: Path,
        *,
        cache_bytes: int,
        threads: int,
        files: Path | None = None,
        leases: Path | None = None,
    ) -> None:
        """``files``: where files made for an engine are kept; beside the log unless given. ``leases``: where others
        say what memory they are going to take."""
        self._wanted_socket = socket_path
        self._log_path = log_path
        self._options = [
            *("--cache-bytes", str(cache_bytes), "--threads", str(threads)),
            *("--files", str(files or log_path.parent / "engine-files")),
            *(() if leases is None else ("--leases", str(leases))),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._private_dir: Path | None = None
        self.socket_path = socket_path

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, *, timeout_seconds: float) -> None:
        """Start it and wait until it can be connected to. Raises: Unavailable with its last log lines."""
        self.stop(grace_seconds=0)
        self.socket_path = self._place_for_socket()
        self.socket_path.unlink(missing_ok=True)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        if self._log_path.exists() and self._log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self._log_path.replace(self._log_path.with_suffix(".1.log"))
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, "--socket", str(self.socket_path), *self._options],
                stdin=subprocess.PIPE,  # its end tells the child that we are gone, however we went
                stdout=log,
                stderr=log,
                env=child_environment(os.environ),
                start_new_session=True,
            )
        self._wait_until_ready(timeout_seconds)

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Close its input, then kill it if it stays."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.socket_path.unlink(missing_ok=True)
        if self._private_dir is not None:
            shutil.rmtree(self._private_dir, ignore_errors=True)
            self._private_dir = None

    def death(self) -> str:
        """Return how it ended and its last log lines, for an error message."""
        code = None if self._process is None else self._process.poll()
        how = "stopped" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        tail = self._log_tail()
        return f"({how})" + (f"; its last log lines:\n{tail}" if tail else "")

    def _wait_until_ready(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not self._accepts():
            if not self.is_alive:
                last_words = self.death()
                self.stop()
                raise Unavailable(f"the model server died while starting {last_words}")
            if time.monotonic() > deadline:
                self.stop(grace_seconds=0)
                raise Unavailable(f"the model server was not ready within {timeout_seconds:g} s; see {self._log_path}")
            time.sleep(0.05)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self.socket_path))
            except OSError:
                return False
        return True

    def _place_for_socket(self) -> Path:
        if len(os.fsencode(self._wanted_socket)) <= _MAX_SOCKET_PATH_BYTES:
            return self._wanted_socket
        self._private_dir = Path(tempfile.mkdtemp(prefix="terakoya-"))  # mode 0700
        return self._private_dir / "model-server.sock"

    def _log_tail(self) -> str:
        try:
            with self._log_path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
                lines = file.read().decode("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])
