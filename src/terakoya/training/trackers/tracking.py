"""Passes a run's events on to trackers from a thread, so that training never waits for another program. Knows no
tracker: one that fails is named in a warning and gets nothing more, the run goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from terakoya.domain.events import EventType, Observer
from terakoya.training.trackers.base import Ending, TrackedRun, Tracker

_PASSED_ON = (EventType.STEP, EventType.EVAL, EventType.CANARY, EventType.SAMPLE)
_MOST_WAITING = 10_000
_LAST_SECONDS = 30.0
"""What trackers have to write the rest once the run is over."""
Item = tuple[EventType, Mapping[str, Any]] | Ending


class TrackedObserver:
    """An Observer, and the context in which its trackers run; events reach the run's own observer first."""

    def __init__(
        self,
        observer: Observer,
        names: Sequence[str],
        run: TrackedRun,
        *,
        load: Callable[[str], type[Tracker]],
        stopped: type[BaseException],
    ) -> None:
        """``stopped``: raised by a run that was cancelled or paused."""
        self._observer = observer
        self._names = names
        self._run = run
        self._load = load
        self._stopped = stopped
        self._trackers: dict[str, Tracker] = {}
        self._waiting: queue.Queue[Item] = queue.Queue(_MOST_WAITING)
        self._lost = 0
        self._thread = threading.Thread(target=self._pass_on, name="trackers", daemon=True)

    def notify(self, type: EventType, /, **fields: Any) -> None:
        self._observer.notify(type, **fields)
        if self._names and type in _PASSED_ON:
            try:
                self._waiting.put_nowait((type, fields))
            except queue.Full:
                self._lost += 1

    def __enter__(self) -> TrackedObserver:
        if self._names:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._names:
            return
        ending = Ending.FINISHED if kind is None else Ending.KILLED if kind is self._stopped else Ending.FAILED
        try:
            self._waiting.put(ending, timeout=_LAST_SECONDS)
        except queue.Full:
            self._lost += 1
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive() or self._lost:
            message = f"{', '.join(self._names)} did not take every figure in time; the run's own record has them all"
            self._observer.notify(EventType.WARNING, code="tracker_slow", message=message)

    def _pass_on(self) -> None:
        for name in self._names:
            self._guard(name, self._open, name)
        while True:
            item = self._waiting.get()
            for name, tracker in list(self._trackers.items()):
                if isinstance(item, Ending):
                    self._guard(name, tracker.close, item)
                else:
                    self._guard(name, tracker.take, *item)
            if isinstance(item, Ending):
                return

    def _open(self, name: str) -> None:
        self._trackers[name] = self._load(name)(self._run)

    def _guard(self, name: str, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  another program's client: whatever it raises must not end the run
            self._trackers.pop(name, None)
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            self._observer.notify(
                EventType.WARNING,
                code="tracker_failed",
                message=f"{name} gets no more of this run ({reason}); the run goes on",
            )
