"""The lock by which one web process owns a data folder, and by which others find it. Knows nothing of HTTP."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from terakoya.exceptions import Conflict

_PATIENCE_SECONDS = 0.5
"""``running_server`` holds the lock for an instant to see whether it is free; a start must not trip over that."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    pid: int
    url: str
    """Empty until the server has bound its port."""


class ServerLock:
    """Held by flock until released or until the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, url: str) -> ServerLock:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                holder = _read(descriptor)
                os.close(descriptor)
                where = f"pid {holder.pid}, {holder.url or 'still starting'}" if holder else "still starting"
                raise Conflict(
                    f"another Terakoya server ({where}) is using the data folder {str(path.parent)!r}; "
                    "use that one, stop it, or set TERAKOYA_DATA_DIR to another folder"
                )
            time.sleep(0.05)
        lock = cls(descriptor)
        lock.announce(url)
        return lock

    def announce(self, url: str) -> None:
        """Say where the server can be reached, for the command line to find it."""
        content = json.dumps({"pid": os.getpid(), "url": url}).encode()
        # Written over the old content in place: replacing the file would lose the lock, which is on this inode.
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def release(self) -> None:
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> ServerLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def running_server(path: Path) -> RunningServer | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else _read(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> RunningServer | None:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        return RunningServer(pid=int(content["pid"]), url=str(content["url"]))
    except (ValueError, KeyError):
        return None
