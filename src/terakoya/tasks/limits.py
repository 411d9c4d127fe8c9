"""Watches one worker for two ends it cannot be trusted to find by itself: it has worked for as long as it may, or has
given no sign of life for too long. Says which; knows nothing of how a worker is stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from terakoya.domain.tasks import ProcessIdentity, Task, TaskLimits
from terakoya.storage.heartbeat import Pulse, pulse
from terakoya.tasks.process import age_seconds

_LONGEST_LOOK_SECONDS = 5.0


class Breach(Enum):
    TIME_LIMIT = auto()
    NO_PROGRESS = auto()


@dataclass(slots=True)
class Stopwatch:
    """Counts how long a task has worked, over its attempts. On the machine's own clock, which nobody sets."""

    before_seconds: float
    """By earlier attempts, and by this process before it was adopted."""
    began: float

    @classmethod
    def of(cls, task: Task, owner: ProcessIdentity) -> Stopwatch:
        return cls(task.worked_seconds + age_seconds(owner), time.monotonic())

    @property
    def seconds(self) -> float:
        return self.before_seconds + time.monotonic() - self.began


class LimitWatch:
    def __init__(self, limits: TaskLimits, stopwatch: Stopwatch, task_dir: Path) -> None:
        self._limits = limits
        self._stopwatch = stopwatch
        self._task_dir = task_dir
        self._pulse: Pulse | None = None
        self._heard = time.monotonic()

    @property
    def is_needed(self) -> bool:
        return self._limits.max_hours is not None or self._limits.no_progress_minutes is not None

    @property
    def seconds_between_looks(self) -> float:
        bounds = [_LONGEST_LOOK_SECONDS]
        if self._limits.max_hours is not None:
            bounds.append(max(self._limits.max_hours * 3600 - self._stopwatch.seconds, 0) + 0.1)
        if self._limits.no_progress_minutes is not None:
            bounds.append(self._limits.no_progress_minutes * 60 / 4)
        return min(bounds)

    def look(self) -> Breach | None:
        now, seen = time.monotonic(), pulse(self._task_dir)
        if seen != self._pulse:
            self._pulse, self._heard = seen, now
        if self._limits.max_hours is not None and self._stopwatch.seconds >= self._limits.max_hours * 3600:
            return Breach.TIME_LIMIT
        silence = self._limits.no_progress_minutes
        if silence is not None and now - self._heard >= silence * 60:
            return Breach.NO_PROGRESS
        return None


def told(breach: Breach, limits: TaskLimits) -> str:
    if breach is Breach.TIME_LIMIT:
        return (
            f"it has worked for {limits.max_hours:g} hours, as long as it may; what it learnt is in its last "
            "checkpoint: resume it to go on for as long again"
        )
    return f"it gave no sign of life for {limits.no_progress_minutes:g} minutes"
