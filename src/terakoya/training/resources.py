"""Tells at a bounded rate what a run takes of the machine, from a thread of its own, in every phase. Knows nothing
of what the run does.
"""

from __future__ import annotations

import time
from typing import Any, Self

import psutil
import torch

from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import AppException
from terakoya.training.engine.watching_thread import WatchingThread
from terakoya.utils.host_memory import host_room_bytes

SECONDS = 3.0
_RARER = 500
"""From 500 intervals on they grow with the time elapsed, so that a week gives some 3,000 events, not 200,000."""


class ResourceWatch(WatchingThread):
    """A context in which RESOURCES events are told."""

    def __init__(self, observer: Observer, device: torch.device, *, seconds: float = SECONDS) -> None:
        super().__init__("resources")
        self._observer = observer
        self._device = device
        self._seconds = seconds
        self._process = psutil.Process()

    def __enter__(self) -> Self:
        self._process.cpu_percent()  # counts from here
        return super().__enter__()

    def _watch(self) -> None:
        started = time.monotonic()
        wait = self._seconds / 6  # a short run has one too
        while not self._over.wait(wait):
            wait = max(self._seconds, (time.monotonic() - started) / _RARER)
            try:
                self._observer.notify(EventType.RESOURCES, **self.read())
            except AppException:  # a full disk: the run itself meets it and says so
                return

    def read(self) -> dict[str, Any]:
        """``cpu_percent`` is of this process, 100 a core."""
        facts: dict[str, Any] = {
            "rss_bytes": self._process.memory_info().rss,
            "available_bytes": host_room_bytes(),
            "cpu_percent": self._process.cpu_percent(),
            "cores": psutil.cpu_count() or 1,
        }
        return facts | (_gpu(self._device) if self._device.type == "cuda" else {})


def _gpu(device: torch.device) -> dict[str, Any]:
    """Memory of the card as a whole; use and temperature where NVIDIA's management library is there to ask."""
    free, total = torch.cuda.mem_get_info(device)
    facts: dict[str, Any] = {"gpu_memory_bytes": total - free, "gpu_memory_total_bytes": total}
    try:
        facts |= {"gpu_percent": torch.cuda.utilization(device), "gpu_celsius": torch.cuda.temperature(device)}
    except (ImportError, RuntimeError):  # PyTorch has them from pynvml alone
        return facts
    return facts
