from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError

import numpy as np
import pytest
from tests.tiny_model import tiny_artifact

from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import ModelLoadError, TooBusy
from terakoya.models.encoding_queue import EncodeJob, EncodingQueue
from terakoya.models.wire import Embedded, EmbedRequest


class SteppedEngine:
    """Takes a batch a text, each when it is let; writes down whose."""

    def __init__(self) -> None:
        self.batches: list[str] = []
        self.let = threading.Semaphore(0)
        self.at_work = threading.Semaphore(0)

    def embed(self, request: EmbedRequest, is_cancelled: Callable[[], bool]) -> Generator[None, None, Embedded]:
        for text in request.texts:
            self.at_work.release()
            self.let.acquire()
            if text == "fail":
                raise ModelLoadError("no")
            self.batches.append(text)
            yield
        return Embedded(np.zeros((len(request.texts), 1), dtype=np.float32))


def submit(queue: EncodingQueue, engine: SteppedEngine, request: EmbedRequest) -> EncodeJob:
    return queue.submit(lambda is_cancelled: engine.embed(request, is_cancelled), is_urgent=request.is_query)


@pytest.fixture
def artifact(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    return tiny_artifact(tmp_path_factory.mktemp("none"))


def test_a_query_goes_before_the_rest_of_the_passages_at_work(artifact: ModelArtifact) -> None:
    engine = SteppedEngine()
    queue = EncodingQueue()
    passages = submit(queue, engine, EmbedRequest(artifact, ("p1", "p2", "p3"), is_query=False))
    assert engine.at_work.acquire(timeout=5)
    later = submit(queue, engine, EmbedRequest(artifact, ("later",), is_query=False))
    query = submit(queue, engine, EmbedRequest(artifact, ("q",), is_query=True))
    engine.let.release(5)
    for job in (query, passages, later):
        job.done.result(timeout=5)
    assert engine.batches == ["p1", "q", "p2", "p3", "later"]


def test_an_error_reaches_whoever_asked_and_the_next_is_served(artifact: ModelArtifact) -> None:
    engine = SteppedEngine()
    engine.let.release(10)
    queue = EncodingQueue()
    with pytest.raises(ModelLoadError):
        submit(queue, engine, EmbedRequest(artifact, ("fail",), is_query=True)).done.result(timeout=5)
    assert submit(queue, engine, EmbedRequest(artifact, ("a",), is_query=True)).done.result(
        timeout=5
    ).vectors.shape == (1, 1)


def test_what_nobody_waits_for_is_dropped_at_the_next_batch(artifact: ModelArtifact) -> None:
    engine = SteppedEngine()
    queue = EncodingQueue()
    job = submit(queue, engine, EmbedRequest(artifact, ("p1", "p2"), is_query=False))
    assert engine.at_work.acquire(timeout=5)
    job.cancelled.set()
    engine.let.release(2)
    with pytest.raises(CancelledError):
        job.done.result(timeout=5)
    assert engine.batches == ["p1"]


def test_a_full_queue_is_said_at_once(artifact: ModelArtifact) -> None:
    engine = SteppedEngine()
    queue = EncodingQueue(max_waiting=1)
    submit(queue, engine, EmbedRequest(artifact, ("at work",), is_query=False))
    assert engine.at_work.acquire(timeout=5)
    submit(queue, engine, EmbedRequest(artifact, ("waits",), is_query=False))
    with pytest.raises(TooBusy, match="1 requests wait"):
        submit(queue, engine, EmbedRequest(artifact, ("one too many",), is_query=True))
    engine.let.release(2)
