from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from terakoya.domain.documents import Answer, CollectionInfo
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import CollectionNotFound, RAGError, Unavailable
from terakoya.rag.core.engine import AnswerEngine
from terakoya.rag.core.events import AnswerEvent, Done, TokenWritten
from terakoya.rag.core.session import RAGSession
from terakoya.rag.core.speaking import Question

COLLECTION = CollectionInfo("collection_1", "default", "model_1", "a" * 64, 64, 10.0, datetime.now(UTC))
ANSWER = Answer("Yes. [1]", "extractive", (), "answered", "trace_1", None)


class Engine:
    """Answers "slow" without an end, fails on "broken"."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.running = 0
        self.started = asyncio.Event()

    async def answer(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        self.asked.append(question)
        self.running += 1
        self.started.set()
        try:
            yield TokenWritten("Yes.")
            if question.text == "slow":
                await asyncio.Event().wait()
            if question.text == "broken":
                raise Unavailable("the model server is gone")
            yield Done(ANSWER)
        finally:
            self.running -= 1


def opened(engine: Engine) -> RAGSession:
    def resolve() -> tuple[CollectionInfo, ModelArtifact | None]:
        return COLLECTION, None

    return RAGSession(cast(AnswerEngine, cast(Any, engine)), resolve, "auto")


async def test_a_question_is_answered() -> None:
    engine = Engine()
    async with opened(engine) as session:
        assert await session.query("Is it?", top_k=3) == ANSWER
    assert engine.asked == [Question(COLLECTION, "Is it?", "auto", None, 3)]


async def test_events_come_as_they_are_made() -> None:
    async with opened(Engine()) as session:
        events = [event async for event in session.stream("Is it?")]
    assert [event.type for event in events] == ["token", "done"]


async def test_leaving_the_session_stops_what_is_being_written() -> None:
    engine = Engine()
    async with opened(engine) as session:
        waiting = asyncio.create_task(session.query("slow"))
        await engine.started.wait()
    assert engine.running == 0
    with pytest.raises(RAGError, match="left before"):
        await waiting


async def test_closing_the_stream_stops_it_and_nothing_else() -> None:
    engine = Engine()
    async with opened(engine) as session:
        other = asyncio.create_task(session.query("slow"))
        events = session.stream("slow")
        assert await anext(events) == TokenWritten("Yes.")
        await asyncio.sleep(0.02)
        assert engine.running == 2
        await events.aclose()
        assert engine.running == 1
        other.cancel()


async def test_an_error_reaches_who_asked() -> None:
    async with opened(Engine()) as session:
        with pytest.raises(Unavailable, match="gone"):
            await session.query("broken")
        assert await session.query("Is it?") == ANSWER


async def test_what_the_session_needs_is_looked_for_on_entering() -> None:
    def resolve() -> tuple[CollectionInfo, ModelArtifact | None]:
        raise CollectionNotFound("no collection 'x'")

    with pytest.raises(CollectionNotFound):
        async with RAGSession(cast(AnswerEngine, cast(Any, Engine())), resolve, "auto"):
            raise AssertionError("not entered")


async def test_a_session_that_is_not_open_answers_nothing() -> None:
    session = opened(Engine())
    with pytest.raises(RAGError, match="async with"):
        await session.query("Is it?")
