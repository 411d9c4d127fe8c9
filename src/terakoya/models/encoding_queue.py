"""The order in which texts are embedded and passages reranked: what somebody waits for at a keyboard before the rest, a
batch at a time, in one thread of its own. Knows neither sockets nor torch.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from terakoya.exceptions import TooBusy

MAX_WAITING = 32


Steps = Generator[None, None, Any]
"""Yields after each batch, then returns what was asked for."""


@dataclass(order=True)
class EncodeJob:
    """One request on its way. Compares by who goes first."""

    rank: tuple[bool, int]
    """The urgent (False) first, then in the order they came."""
    done: Future[Any] = field(default_factory=Future, compare=False)
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False)
    steps: Steps | None = field(default=None, compare=False)


class EncodingQueue:
    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._jobs: list[EncodeJob] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._batch_began: float | None = None
        threading.Thread(target=self._work, name="embedding", daemon=True).start()

    def submit(self, begin: Callable[[Callable[[], bool]], Steps], *, is_urgent: bool) -> EncodeJob:
        """``begin``: makes the steps, given what tells that nobody waits any more. Raises: TooBusy if too many wait."""
        with self._changed:
            if len(self._jobs) >= self._max_waiting:
                raise TooBusy(
                    f"{self._max_waiting} requests wait to be embedded or reranked already; try again in a moment"
                )
            job = EncodeJob((not is_urgent, next(self._numbers)))
            job.steps = begin(job.cancelled.is_set)
            heapq.heappush(self._jobs, job)
            self._changed.notify()
        return job

    @property
    def batch_seconds(self) -> float:
        """How long the batch at work has taken; 0 between batches."""
        began = self._batch_began
        return 0.0 if began is None else time.monotonic() - began

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = heapq.heappop(self._jobs)
            self._batch_began = time.monotonic()
            is_finished = _one_batch(job)
            self._batch_began = None
            if not is_finished:
                with self._changed:
                    heapq.heappush(self._jobs, job)


def _one_batch(job: EncodeJob) -> bool:
    """Go on with the job; return whether that was its end."""
    assert job.steps is not None
    if job.cancelled.is_set():
        job.steps.close()
        job.done.cancel()
        return True
    try:
        next(job.steps)
    except StopIteration as end:
        job.done.set_result(end.value)
    except Exception as error:  # noqa: BLE001  a worker's entry: whoever waits for the job gets it
        job.done.set_exception(error)
    else:
        return False
    return True
