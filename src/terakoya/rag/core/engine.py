"""From a question to its answer: retrieve, decide whether the documents hold it, let it be said, and leave a trace.
Knows neither sessions nor HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import structlog

from terakoya.domain.document_ports import Embedder, TraceRepository
from terakoya.domain.documents import Answer, Hit
from terakoya.models.service import ChatClient
from terakoya.rag.core.abstention import Decision, decide
from terakoya.rag.core.calibration import table_of
from terakoya.rag.core.events import AnswerEvent, Done, HitFound, VerdictReached
from terakoya.rag.core.follow_up import standalone
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.speaking import Outcome, Question, Speaker
from terakoya.rag.core.trace import QueryTrace
from terakoya.rag.retrieval.retriever import Retrieved, Retriever

log = structlog.get_logger(__name__)

CANDIDATES = 50
"""Passages that are ranked, and kept in the trace."""


class AnswerEngine:
    def __init__(
        self,
        *,
        retriever: Retriever,
        embedder: Embedder,
        chat: ChatClient,
        probe: CitationProbe,
        traces: TraceRepository,
        new_id: Callable[[str], str],
    ) -> None:
        self._retriever = retriever
        self._speaker = Speaker(embedder=embedder, chat=chat, probe=probe)
        self._traces = traces
        self._new_id = new_id

    async def search(self, question: Question) -> tuple[tuple[Hit, ...], str]:
        """Return the best passages and the trace's id. Raises: InvalidQuery, Unavailable."""
        trace = self._trace(question, kind="search")
        found = await self._find(question, trace)
        await self._keep(question, trace)
        return tuple(found.hits[: question.top_k]), trace.id

    async def answer(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Yield what comes: passages, text, citations, the verdict, the whole. Closing it stops a model's writing.

        Raises: InvalidQuery; CitationProbeFailed if the mode is "generative" and the model may not; Unavailable.
        """
        trace = self._trace(question, kind="query")
        asked = question.text
        question = replace(question, text=await asyncio.to_thread(standalone, asked, question.earlier))
        if question.text != asked:
            trace.rewritten(question.text)
        found = await self._find(question, trace)
        if question.mode == "generative":  # said before anything is shown
            await self._speaker.require_probe(question, found.language, trace)
        for hit in found.hits[: question.top_k]:
            yield HitFound(hit)
        decision = await self._decide(question, found, trace)
        outcome = Outcome()
        if decision.is_answerable:
            async with aclosing(self._speaker.speak(question, found, trace)) as parts:
                async for part in parts:
                    if isinstance(part, Outcome):
                        outcome = part
                    else:
                        yield part
        else:
            yield VerdictReached("not_in_documents")
        yield Done(await self._concluded(question, found, decision, outcome, trace))

    def _trace(self, question: Question, *, kind: str) -> QueryTrace:
        return QueryTrace(
            self._new_id("trace"),
            kind=kind,
            query=question.text,
            mode_asked=question.mode,
            top_k=question.top_k,
            passages_in_collection=question.collection.passages,
            retrieval=question.collection.retrieval.to_json(),
            filters=question.filters.to_json(),
        )

    async def _find(self, question: Question, trace: QueryTrace) -> Retrieved:
        with trace.stage("retrieve"):
            found = await self._retriever.search(
                question.collection,
                question.text,
                limit=CANDIDATES,
                settings=question.collection.retrieval,
                filters=question.filters,
            )
        trace.found(found.language.value, found.hits, found.seconds)
        return found

    async def _decide(self, question: Question, found: Retrieved, trace: QueryTrace) -> Decision:
        with trace.stage("decide"):
            decision = await asyncio.to_thread(
                decide,
                found.query,
                found.language,
                found.terms,
                found.hits,
                passages=question.collection.passages,
                table=table_of(question.collection),
            )
        trace.decided(decision)
        return decision

    async def _concluded(
        self, question: Question, found: Retrieved, decision: Decision, outcome: Outcome, trace: QueryTrace
    ) -> Answer:
        facts = {"probability": round(decision.probability, 4), "threshold": decision.threshold}
        answer = Answer(
            answer=outcome.text,
            mode=outcome.mode,
            citations=outcome.citations,
            verdict=outcome.verdict,
            trace_id=trace.id,
            model=outcome.model,
            evidence=tuple(found.hits[: question.top_k]),
            details={**facts, **outcome.details, **trace.rewriting(), "seconds": trace.all_seconds()},
        )
        trace.answered(answer)
        await self._keep(question, trace)
        log.info(
            "question_answered",
            trace_id=trace.id,
            mode=answer.mode,
            verdict=answer.verdict,
            citations=len(answer.citations),
        )
        return answer

    async def _keep(self, question: Question, trace: QueryTrace) -> None:
        await asyncio.to_thread(self._traces.save, trace.id, question.collection.id, trace.to_json())
