"""The application's one door to its documents: sessions that answer, and search. Joins retrieval and answers; knows
nothing of HTTP or of how documents came in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from terakoya.domain.document_ports import EVERYTHING, DocumentRepository, Embedder, ProbeRepository, TraceRepository
from terakoya.domain.documents import DEFAULT_COLLECTION, CollectionInfo, Hit
from terakoya.domain.models import ModelArtifact
from terakoya.domain.ports import ModelRepository
from terakoya.domain.retrieval import Filters
from terakoya.exceptions import InvalidConfig
from terakoya.models.service import ChatClient
from terakoya.rag.core.engine import AnswerEngine
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.session import RAGSession
from terakoya.rag.core.speaking import AskedMode, Question
from terakoya.rag.core.why import PassageTracker, Whereabouts
from terakoya.rag.retrieval.retriever import Retriever

MAX_TOP_K = 50


class RAGApplication:
    """``async with rag_app.get_session() as session: answer = await session.query("...")``"""

    def __init__(
        self,
        *,
        documents: DocumentRepository,
        retriever: Retriever,
        embedder: Embedder,
        models: ModelRepository,
        chat: ChatClient,
        traces: TraceRepository,
        probes: ProbeRepository,
        new_id: Callable[[str], str],
    ) -> None:
        self._documents = documents
        self._models = models
        self._traces = traces
        self._tracker = PassageTracker(documents=documents, retriever=retriever, embedder=embedder)
        self._engine = AnswerEngine(
            retriever=retriever,
            embedder=embedder,
            chat=chat,
            probe=CitationProbe(chat, probes),
            traces=traces,
            new_id=new_id,
        )

    def get_session(
        self,
        *,
        collection: str = DEFAULT_COLLECTION,
        model: str | None = None,
        mode: AskedMode = "auto",
        filters: Filters = EVERYTHING,
    ) -> AbstractAsyncContextManager[RAGSession]:
        """Return a session on a collection, or on those of its documents that ``filters`` choose, to be entered with
        ``async with``.

        ``mode``: "extractive" quotes sentences; "generative" lets ``model`` write, if it has passed the citation
        probe in the question's language; "auto" lets it write if it has, and quotes otherwise.
        Entering raises: CollectionNotFound; ModelNotFound, ModelLoadError; InvalidConfig.
        """

        def resolve() -> tuple[CollectionInfo, ModelArtifact | None]:
            _check_choice(mode, model)
            return self._documents.find_collection(collection), self._load(model)

        return RAGSession(self._engine, resolve, mode, filters)

    async def search(
        self,
        query: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        top_k: int = 10,
        filters: Filters = EVERYTHING,
    ) -> tuple[tuple[Hit, ...], str]:
        """Return the best passages and the id of the trace. Raises: CollectionNotFound, InvalidQuery, Unavailable."""
        found = await asyncio.to_thread(self._documents.find_collection, collection)
        return await self._engine.search(Question(found, query, top_k=top_k, filters=filters))

    async def why(
        self,
        query: str,
        *,
        document_id: str,
        quote: str | None = None,
        collection: str = DEFAULT_COLLECTION,
        top_k: int = 10,
        filters: Filters = EVERYTHING,
    ) -> Whereabouts:
        """Return where on its way a document, or the passage of it that holds the quote, was lost for the question.

        Raises: CollectionNotFound, DocumentNotFound; InvalidConfig; InvalidQuery; Unavailable.
        """
        found = await asyncio.to_thread(self._documents.find_collection, collection)
        question = Question(found, query, top_k=top_k, filters=filters)
        return await self._tracker.follow(question, document_id, quote=quote)

    def trace(self, trace_id: str) -> dict[str, Any]:
        """Return what a question did. Raises: NotFound."""
        return self._traces.find(trace_id)

    def _load(self, model: str | None) -> ModelArtifact | None:
        if model is None:
            return None
        artifact = self._models.load_model(model)
        if not artifact.info.can_answer:
            raise InvalidConfig(f"{artifact.info.name!r} is an embedder and writes no text; name a chat model")
        return artifact


def _check_choice(mode: AskedMode, model: str | None) -> None:
    if mode == "generative" and model is None:
        raise InvalidConfig("the mode 'generative' needs a model to write the answer; name one, or ask in mode 'auto'")
    if mode == "extractive" and model is not None:
        raise InvalidConfig(f"the mode 'extractive' uses no model; got {model!r}; leave it out, or ask in mode 'auto'")
