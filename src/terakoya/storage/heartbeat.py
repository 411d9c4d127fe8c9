"""A worker's sign of life: a file that changes while its process gets on. The worker beats it whenever its main thread
asks what it is to do, and in phases that ask nothing (libraries and models being loaded) for as long as the process
computes. Who looks compares two looks, never a clock. Knows nothing of limits.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from terakoya.domain.events import EventType, Phase

HEARTBEAT_FILE = "heartbeat"
BEAT_SECONDS = 1.0
QUIET_PHASES = frozenset({Phase.LOADING_LIBRARIES, Phase.LOADING_MODEL, Phase.PROBING, Phase.CONVERTING, Phase.SAVING})
"""In which the main thread is in a library for long and says nothing."""
_AT_WORK = 0.02
"""Share of a processor that a process which gets on takes at least."""
Pulse = tuple[int, int]
"""Size and time of the last change."""


class Heartbeat:
    def __init__(self, task_dir: Path) -> None:
        self._path = task_dir / HEARTBEAT_FILE
        self._last = 0.0
        self._beats = 0
        self._is_quiet = threading.Event()

    def start(self) -> None:
        """Beat from a thread of its own too, while a quiet phase computes."""
        threading.Thread(target=self._watch_quiet_phases, name="heartbeat", daemon=True).start()

    def beat(self) -> None:
        """Leave a sign, at most every BEAT_SECONDS. A full disk keeps it from being left; events do then too."""
        now = time.monotonic()
        if now - self._last < BEAT_SECONDS:
            return
        self._last = now
        self._beats += 1
        try:
            self._path.write_text(str(self._beats))
        except OSError:
            return

    def hear(self, type: EventType, phase: object) -> None:
        """Note what the worker says of itself. Its resources are told by a thread that outlives a hang."""
        if type is EventType.RESOURCES:
            return
        if type is EventType.PHASE and phase in QUIET_PHASES:
            self._is_quiet.set()
        else:
            self._is_quiet.clear()
        self.beat()

    def _watch_quiet_phases(self) -> None:
        while True:
            self._is_quiet.wait()
            before = time.process_time()
            time.sleep(BEAT_SECONDS)
            if self._is_quiet.is_set() and time.process_time() - before > _AT_WORK * BEAT_SECONDS:
                self.beat()


def pulse(task_dir: Path) -> Pulse:
    """Return what to compare with an earlier look: equal means that there was no beat in between."""
    try:
        found = (task_dir / HEARTBEAT_FILE).stat()
    except FileNotFoundError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
