"""Memory that a process is going to take, told to the others through one file each: who opens something looks first
at what is promised already. A file of a process that is gone counts for nothing. Knows nothing of what the memory is
for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from terakoya.utils.process_start import start_of

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class MemoryLease:
    holder: str
    """Such as a task's id."""
    pid: int
    started: float
    """When the process started (``start_of``): another process may get the same id later."""
    size_bytes: int
    """The most that the process will hold."""

    @property
    def outstanding_bytes(self) -> int | None:
        """What it is still going to take, None if the process is gone."""
        if start_of(self.pid) != self.started:
            return None
        try:
            held: int = psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return None
        return max(0, self.size_bytes - held)


def hold(folder: Path, holder: str, size_bytes: int) -> None:
    """Promise this process so much, in place of what it was promised before. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lease = MemoryLease(holder, os.getpid(), start_of(os.getpid()) or 0.0, size_bytes)
    waiting = folder / f".{holder}.{os.getpid()}"
    waiting.write_text(json.dumps(asdict(lease)), encoding="utf-8")
    waiting.replace(_file(folder, holder))


def give_back(folder: Path, holder: str) -> None:
    _file(folder, holder).unlink(missing_ok=True)


def _file(folder: Path, holder: str) -> Path:
    """Of this process: whoever forgets a dead attempt's file must not take the next attempt's with it."""
    return folder / f"{holder}.{os.getpid()}{_SUFFIX}"


def outstanding(folder: Path) -> Sequence[tuple[str, int]]:
    """Return each living holder with what it is still going to take, in bytes; forget those that are gone."""
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            lease = MemoryLease(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):  # given back between the look and the reading, or no lease
            continue
        left = lease.outstanding_bytes
        if left is None:
            path.unlink(missing_ok=True)
        else:
            found.append((lease.holder, left))
    return found
