"""The order in which texts are embedded: queries before passages, a batch at a time, in one thread of its own. Knows
neither sockets nor torch.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from terakoya.exceptions import Unavailable
from terakoya.models.wire import Embedded, EmbedRequest

MAX_WAITING = 32


class Engine(Protocol):
    """``EmbeddingEngine``, without torch."""

    def embed(self, request: EmbedRequest, is_cancelled: Callable[[], bool]) -> Generator[None, None, Embedded]: ...


@dataclass(order=True)
class EmbedJob:
    """One request on its way. Compares by who goes first."""

    rank: tuple[bool, int]
    """Queries (False) first, then in the order they came."""
    done: Future[Embedded] = field(default_factory=Future, compare=False)
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False)
    steps: Generator[None, None, Embedded] | None = field(default=None, compare=False)


class EmbeddingQueue:
    def __init__(self, engine: Engine, *, max_waiting: int = MAX_WAITING) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._jobs: list[EmbedJob] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._batch_began: float | None = None
        threading.Thread(target=self._work, name="embedding", daemon=True).start()

    def submit(self, request: EmbedRequest) -> EmbedJob:
        """Raises: Unavailable if too many wait."""
        with self._changed:
            if len(self._jobs) >= self._max_waiting:
                raise Unavailable(f"{self._max_waiting} requests wait to be embedded already; try again in a moment")
            job = EmbedJob((not request.is_query, next(self._numbers)))
            job.steps = self._engine.embed(request, job.cancelled.is_set)
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


def _one_batch(job: EmbedJob) -> bool:
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
