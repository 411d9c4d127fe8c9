"""What a run does when memory runs low: stop at the next boundary with a checkpoint while something can be made
smaller, and end the process before the kernel does when there is no more time. On a GPU running out is caught in the
loop; this is about the machine's own memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import AppException, DoesNotFit, OutOfMemory
from terakoya.training.engine.memory_watch import MemoryWatch
from terakoya.training.fitting import FitInForce, can_be_smaller, does_not_fit_text, keep_fit
from terakoya.utils.host_memory import host_room_bytes


class MemoryGuard:
    def __init__(self, task_dir: Path, observer: Observer, give_up: Callable[[AppException], None] | None) -> None:
        self._task_dir = task_dir
        self._observer = observer
        self._give_up = give_up
        self._fit: FitInForce | None = None
        self._longest = 0
        self._can_shrink = False
        self._left_bytes: int | None = None
        self._watch = MemoryWatch(on_low=self._say_low, on_critical=self._end, room=host_room_bytes)

    def watch(self) -> MemoryWatch:
        """Return the context in which memory is watched, of which there is one."""
        return self._watch

    def guards(self, fit: FitInForce, *, longest: int, may_recompute: bool) -> None:
        """From here on the run computes with this fit."""
        self._longest = longest
        self._can_shrink = can_be_smaller(fit, longest=longest, may_recompute=may_recompute)
        self._fit = fit
        self._left_bytes = None
        self._watch.again()

    @property
    def is_low(self) -> bool:
        """Whether to stop at the next boundary: memory ran low, and another attempt could take less."""
        return self._left_bytes is not None and self._can_shrink

    def error(self) -> AppException:
        left = f"{(self._left_bytes or 0) / 1e6:,.0f} MB were left"
        if self._fit is None:
            return OutOfMemory(f"memory ran low while the model was loaded: {left}; fewer other programs would help")
        if not self._can_shrink:
            return DoesNotFit(f"{does_not_fit_text(self._longest)}; {left}")
        return OutOfMemory(f"memory ran low with up to {self._fit.budget_tokens:,} tokens at once: {left}")

    def _say_low(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes
        if self._fit is not None:
            keep_fit(self._task_dir, replace(self._fit, ran_low=True))  # known to the next attempt, however this ends
        then = "stopping at the next step" if self.is_low else "there is nothing to make smaller"
        self._observer.notify(
            EventType.WARNING, code="memory_low", message=f"only {left_bytes / 1e6:,.0f} MB of memory are left; {then}"
        )

    def _end(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes
        if self._give_up is not None:
            self._give_up(self.error())
