"""A person's questions to one collection: holds what they have in common, and stops what is still being written when
it is left. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType

from terakoya.domain.document_ports import EVERYTHING
from terakoya.domain.documents import Answer, CollectionInfo
from terakoya.domain.models import ModelArtifact
from terakoya.domain.retrieval import Filters
from terakoya.exceptions import RAGError
from terakoya.rag.core.engine import AnswerEngine
from terakoya.rag.core.events import AnswerEvent, Done
from terakoya.rag.core.speaking import AskedMode, Question

MAX_EARLIER = 10
"""Questions of a talk that are kept."""


class RAGSession:
    """``async with rag_app.get_session() as session: answer = await session.query("...")``"""

    def __init__(
        self,
        engine: AnswerEngine,
        resolve: Callable[[], tuple[CollectionInfo, ModelArtifact | None]],
        mode: AskedMode,
        filters: Filters = EVERYTHING,
    ) -> None:
        """``resolve`` blocks: it reads the collection and verifies the model's files, when the session is entered."""
        self._engine = engine
        self._resolve = resolve
        self._mode = mode
        self._filters = filters
        self._earlier: list[str] = []
        self._held: tuple[CollectionInfo, ModelArtifact | None] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> RAGSession:
        self._held = await asyncio.to_thread(self._resolve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held = None
        writing = list(self._writing)
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

    async def query(self, prompt: str, *, top_k: int = 10, earlier: Sequence[str] | None = None) -> Answer:
        """Return the whole answer. Raises as ``stream`` does."""
        async with aclosing(self.stream(prompt, top_k=top_k, earlier=earlier)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.answer
        raise RAGError("the answer ended before it was complete")

    async def stream(
        self, prompt: str, *, top_k: int = 10, earlier: Sequence[str] | None = None
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the answer's events as they come; closing the iterator, or leaving the session, stops the work.

        A question that leans on the ones before it is looked for with their topic: those of this session, unless
        ``earlier`` names others.

        Raises: InvalidQuery; CitationProbeFailed; Unavailable; RAGError if the session was left meanwhile.
        """
        if self._held is None:
            raise RAGError("the session is not open; use it inside `async with rag_app.get_session() as session`")
        collection, model = self._held
        question = Question(
            collection,
            prompt,
            self._mode,
            model,
            top_k,
            self._filters,
            tuple(self._earlier if earlier is None else earlier),
        )
        # Bounded by the answer's length. A task of its own: a generator cannot be closed while another task runs it.
        events: asyncio.Queue[AnswerEvent | None] = asyncio.Queue()
        writing = asyncio.create_task(self._write(question, events))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, Done):
                    self._remember(event.answer.details.get("rewritten", prompt))
                yield event
            if writing.cancelled() or writing.cancelling():
                raise RAGError("the session was left before the answer was complete")
            await writing  # raises what it failed with
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _remember(self, question: str) -> None:
        self._earlier = [*self._earlier, question][-MAX_EARLIER:]

    async def _write(self, question: Question, events: asyncio.Queue[AnswerEvent | None]) -> None:
        try:
            async with aclosing(self._engine.answer(question)) as answer:
                async for event in answer:
                    events.put_nowait(event)
        finally:
            events.put_nowait(None)
