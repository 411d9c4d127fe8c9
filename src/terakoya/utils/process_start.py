"""When a process started, as what tells it from a later one with its id. Knows nothing of what it does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil


def start_of(pid: int) -> float | None:
    """Return the seconds from the boot to its start, None if there is no such process.

    On Linux from /proc: psutil's start time is wall-clock time and moves when the clock is set.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *fields = stat[stat.rindex(")") + 2 :].split()
        return None if state in "ZX" else int(fields[18]) / os.sysconf("SC_CLK_TCK")
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
