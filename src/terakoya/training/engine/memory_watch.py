"""Watches what memory is left while a run computes, from a thread of its own: on a CPU nothing can be caught, the
kernel kills. Says when it gets low, in time for a checkpoint, and when there is no more time. Knows nothing of runs.
"""

from __future__ import annotations

from collections.abc import Callable

from terakoya.training.engine.watching_thread import WatchingThread
from terakoya.utils.host_memory import host_room_bytes, host_total_bytes

POLL_SECONDS = 0.1
_LOW_SHARE, _LOW_BYTES = 0.04, 192 << 20
"""Of the memory there is, or so many bytes where that is more: less than this is low."""
_CRITICAL_PART = 4
"""A quarter of that is critical."""


class MemoryWatch(WatchingThread):
    """A context in which memory is watched. That it is low is told once, and after ``again`` once more."""

    def __init__(
        self,
        *,
        on_low: Callable[[int], None],
        on_critical: Callable[[int], None],
        room: Callable[[], int] = host_room_bytes,
        low_bytes: int | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """The callbacks hear how many bytes are left, in the watching thread."""
        super().__init__("memory")
        self._on_low = on_low
        self._on_critical = on_critical
        self._room = room
        self._low_bytes = low_water_bytes() if low_bytes is None else low_bytes
        self._poll_seconds = poll_seconds
        self._said_low = False

    def again(self) -> None:
        """Tell once more if memory is low: something has changed that decides what to do about it."""
        self._said_low = False

    def _watch(self) -> None:
        while not self._over.wait(self._poll_seconds):
            room = self._room()
            if room < self._low_bytes and not self._said_low:
                self._said_low = True
                self._on_low(room)
            if room < self._low_bytes // _CRITICAL_PART:
                self._on_critical(room)
                return


def low_water_bytes() -> int:
    return max(int(_LOW_SHARE * host_total_bytes()), _LOW_BYTES)
