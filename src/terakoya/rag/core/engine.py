"""From a question to its answer: retrieve, decide whether the documents hold it, let sentences or a model speak, and
leave a trace. Knows neither sessions nor HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from terakoya.domain.document_ports import Embedder, TraceRepository
from terakoya.domain.documents import Answer, AnswerMode, Citation, CollectionInfo, Hit, Language, Verdict
from terakoya.domain.models import ModelArtifact
from terakoya.exceptions import CitationProbeFailed, Unavailable
from terakoya.models.service import ChatClient
from terakoya.rag.core.abstention import Decision, decide
from terakoya.rag.core.events import AnswerEvent, CitationChecked, Done, HitFound, TokenWritten, VerdictReached
from terakoya.rag.core.evidence import EvidenceSentence, evidence_sentences
from terakoya.rag.core.extractive import Extract, choose, compose, score_sentences
from terakoya.rag.core.generative import Written, write
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.trace import QueryTrace
from terakoya.rag.retrieval.retriever import Retrieved, Retriever

log = structlog.get_logger(__name__)

AskedMode = Literal["auto", "extractive", "generative"]
CANDIDATES = 50
"""Passages that are ranked, and kept in the trace."""
_READ = 5
"""Passages whose sentences are read for the answer."""


@dataclass(frozen=True, slots=True)
class Question:
    collection: CollectionInfo
    text: str
    mode: AskedMode = "auto"
    model: ModelArtifact | None = None
    top_k: int = 10


@dataclass(slots=True)
class _Progress:
    """What is known of one question so far."""

    question: Question
    trace: QueryTrace
    found: Retrieved
    decision: Decision
    sentences: tuple[EvidenceSentence, ...] = ()

    @property
    def shown(self) -> tuple[Hit, ...]:
        return tuple(self.found.hits[: self.question.top_k])


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
        self._embedder = embedder
        self._chat = chat
        self._probe = probe
        self._traces = traces
        self._new_id = new_id

    async def search(self, question: Question) -> tuple[tuple[Hit, ...], str]:
        """Return the best passages and the trace's id. Raises: InvalidQuery, Unavailable."""
        trace = self._trace(question, kind="search")
        found = await self._find(question, trace)
        await asyncio.to_thread(self._traces.save, trace.id, question.collection.id, trace.to_json())
        return tuple(found.hits[: question.top_k]), trace.id

    async def answer(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Yield what comes: passages, text, citations, the verdict, the whole. Closing it stops a model's writing.

        Raises: InvalidQuery; CitationProbeFailed if the mode is "generative" and the model may not; Unavailable.
        """
        trace = self._trace(question, kind="query")
        found = await self._find(question, trace)
        if question.mode == "generative":  # said before anything is shown
            await self._require_probe(question, found.language, trace)
        for hit in found.hits[: question.top_k]:
            yield HitFound(hit)
        with trace.stage("decide"):
            decision = await asyncio.to_thread(
                decide,
                found.query,
                found.language,
                found.terms,
                found.hits,
                passages=question.collection.passages,
            )
        trace.decided(decision)
        progress = _Progress(question, trace, found, decision)
        async with aclosing(self._speak(progress)) as events:
            async for event in events:
                yield event

    async def _speak(self, progress: _Progress) -> AsyncGenerator[AnswerEvent, None]:
        if progress.decision.is_answerable:
            with progress.trace.stage("read"):
                best = progress.found.hits[:_READ]
                progress.sentences = await asyncio.to_thread(evidence_sentences, best)
        if not progress.sentences:
            yield VerdictReached("not_in_documents")
            yield await self._done(progress)
            return
        reason = await self._why_not_generate(progress)
        events = self._generate(progress) if reason is None else self._extract(progress, reason)
        async with aclosing(events):
            async for event in events:
                yield event

    # -- the documents' own words --

    async def _extract(self, progress: _Progress, reason: str, **details: Any) -> AsyncGenerator[AnswerEvent, None]:
        extract = await self._extracted(progress)
        for event in _as_events(extract):
            yield event
        yield VerdictReached("answered")
        yield await self._done(
            progress,
            text=extract.text,
            citations=extract.citations,
            verdict="answered",
            details={"reason": reason, **details},
        )

    async def _extracted(self, progress: _Progress) -> Extract:
        found = progress.found
        with progress.trace.stage("score_sentences"):
            scored = await score_sentences(
                found.query,
                found.terms,
                found.query_vector,
                progress.sentences,
                embedder=self._embedder,
                embedder_id=progress.question.collection.embedder_id,
            )
        extract = compose(choose(scored))
        progress.trace.scored(scored, extract.sentences)
        return extract

    # -- a model's words --

    async def _generate(self, progress: _Progress) -> AsyncGenerator[AnswerEvent, None]:
        model = progress.question.model
        assert model is not None  # _why_not_generate says why otherwise
        written: Written | None = None
        parts = write(self._chat, model, progress.found.query, progress.found.language, progress.sentences)
        with progress.trace.stage("generate"):
            async with aclosing(parts):
                async for part in parts:
                    if isinstance(part, Written):
                        written = part
                    else:
                        yield TokenWritten(part)
        assert written is not None  # the last part, or the stream raised
        name = model.info.name
        checked = written.answer
        if checked is None:
            yield VerdictReached("not_in_documents")
            reason = f"model {name!r} found no answer in the passages"
            yield await self._done(progress, mode="generative", model=name, details={"reason": reason})
        elif not any(citation.verified for citation in checked.citations):
            failed = sorted({citation.support for citation in checked.citations}) or ["no_citation"]
            reason = f"no citation that model {name!r} wrote could be verified ({', '.join(failed)})"
            async with aclosing(self._extract(progress, reason, unverified_model=name)) as events:
                async for event in events:
                    yield event
        else:
            for citation in checked.citations:
                yield CitationChecked(citation)
            yield VerdictReached("answered")
            yield await self._done(
                progress,
                text=checked.text,
                citations=checked.citations,
                verdict="answered",
                mode="generative",
                model=name,
                details={
                    "sentences": checked.sentences,
                    "unsupported_sentences": checked.unsupported_sentences,
                    "sentences_read": written.prompt_sentences,
                },
            )

    async def _why_not_generate(self, progress: _Progress) -> str | None:
        """Return why the documents' own words are used; None if the model may write."""
        question = progress.question
        if question.mode == "extractive":
            return "asked for"
        if question.model is None:
            return "no model was named"
        try:
            with progress.trace.stage("probe"):
                result = await self._probe.result(question.model, progress.found.language)
        except Unavailable as error:
            if question.mode == "generative":
                raise
            return str(error)
        return None if result.has_passed else result.reason(question.model.info.name, progress.found.language)

    async def _require_probe(self, question: Question, language: Language, trace: QueryTrace) -> None:
        assert question.model is not None  # the session refuses the mode without a model
        with trace.stage("probe"):
            result = await self._probe.result(question.model, language)
        if not result.has_passed:
            raise CitationProbeFailed(
                f"{result.reason(question.model.info.name, language)}, so it may not write answers in that language; "
                "ask in the mode 'extractive' or 'auto', or choose another model"
            )

    # -- beginning and end --

    def _trace(self, question: Question, *, kind: str) -> QueryTrace:
        return QueryTrace(
            self._new_id("trace"),
            kind=kind,
            query=question.text,
            mode_asked=question.mode,
            top_k=question.top_k,
            passages_in_collection=question.collection.passages,
        )

    async def _find(self, question: Question, trace: QueryTrace) -> Retrieved:
        with trace.stage("retrieve"):
            found = await self._retriever.search(
                question.collection, question.text, limit=CANDIDATES, candidates=CANDIDATES
            )
        trace.found(found.language.value, found.hits, found.seconds)
        return found

    async def _done(
        self,
        progress: _Progress,
        *,
        text: str = "",
        citations: tuple[Citation, ...] = (),
        verdict: Verdict = "not_in_documents",
        mode: AnswerMode = "extractive",
        model: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> Done:
        trace, decision = progress.trace, progress.decision
        facts = {"probability": round(decision.probability, 4), "threshold": decision.threshold}
        answer = Answer(
            answer=text,
            mode=mode,
            citations=citations,
            verdict=verdict,
            trace_id=trace.id,
            model=model,
            evidence=progress.shown,
            details={**facts, **(details or {}), "seconds": dict(trace.seconds)},
        )
        trace.answered(answer)
        await asyncio.to_thread(self._traces.save, trace.id, progress.question.collection.id, trace.to_json())
        log.info(
            "question_answered",
            trace_id=trace.id,
            mode=mode,
            verdict=verdict,
            citations=len(citations),
            seconds=trace.to_json()["seconds"]["total"],
        )
        return Done(answer)


def _as_events(extract: Extract) -> list[AnswerEvent]:
    """Each sentence with its marker, then its citation."""
    events: list[AnswerEvent] = []
    place = 0
    for citation in extract.citations:
        marker_end = extract.text.index("]", citation.answer_end) + 1
        events += [TokenWritten(extract.text[place:marker_end]), CitationChecked(citation)]
        place = marker_end
    return events
