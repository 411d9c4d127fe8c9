"""Who speaks, once the documents hold the answer: their own sentences, or a model that may write. Yields the events on
the way and, last, the outcome. Knows neither retrieval nor where traces are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from terakoya.domain.document_ports import EVERYTHING, Embedder
from terakoya.domain.documents import AnswerMode, Citation, CollectionInfo, Language, Verdict
from terakoya.domain.models import ModelArtifact
from terakoya.domain.retrieval import Filters
from terakoya.exceptions import CitationProbeFailed, Unavailable
from terakoya.models.service import ChatClient
from terakoya.rag.core.events import AnswerEvent, CitationChecked, TokenWritten, VerdictReached
from terakoya.rag.core.evidence import EvidenceSentence, evidence_sentences
from terakoya.rag.core.extractive import Extract, choose, compose, score_sentences
from terakoya.rag.core.generative import Written, write
from terakoya.rag.core.probe import CitationProbe
from terakoya.rag.core.trace import QueryTrace
from terakoya.rag.retrieval.retriever import Retrieved

AskedMode = Literal["auto", "extractive", "generative"]
PASSAGES_READ = 5
"""Passages whose sentences are read for the answer."""


@dataclass(frozen=True, slots=True)
class Question:
    collection: CollectionInfo
    text: str
    mode: AskedMode = "auto"
    model: ModelArtifact | None = None
    top_k: int = 10
    filters: Filters = EVERYTHING
    earlier: tuple[str, ...] = ()
    """Questions of the same talk before it, oldest first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the answer will say."""

    verdict: Verdict = "not_in_documents"
    text: str = ""
    citations: tuple[Citation, ...] = ()
    mode: AnswerMode = "extractive"
    model: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Speaker:
    def __init__(self, *, embedder: Embedder, chat: ChatClient, probe: CitationProbe) -> None:
        self._embedder = embedder
        self._chat = chat
        self._probe = probe

    async def require_probe(self, question: Question, language: Language, trace: QueryTrace) -> None:
        """Raises: CitationProbeFailed if the question's model may not write in the language; Unavailable."""
        assert question.model is not None  # the session refuses the mode "generative" without a model
        with trace.stage("probe"):
            result = await self._probe.result(question.model, language)
        if not result.has_passed:
            raise CitationProbeFailed(
                f"{result.reason(question.model.info.name, language)}, so it may not write answers in that language; "
                "ask in the mode 'extractive' or 'auto', or choose another model"
            )

    async def speak(
        self, question: Question, found: Retrieved, trace: QueryTrace
    ) -> AsyncGenerator[AnswerEvent | Outcome, None]:
        """Yield text, citations and verdict as they come, then the outcome. Closing it stops a model's writing."""
        with trace.stage("read"):
            sentences = await asyncio.to_thread(evidence_sentences, found.hits[:PASSAGES_READ])
        if not sentences:
            yield VerdictReached("not_in_documents")
            yield Outcome(details={"reason": "the passages hold no sentence"})
            return
        reason = await self._why_not_write(question, found.language, trace)
        if reason is None:
            parts = self._write(question, found, sentences, trace)
        else:
            parts = self._quote(question, found, sentences, trace, {"reason": reason})
        async with aclosing(parts):
            async for part in parts:
                yield part

    async def _why_not_write(self, question: Question, language: Language, trace: QueryTrace) -> str | None:
        """Return why the documents' own words are used; None if the model may write."""
        if question.mode == "extractive":
            return "asked for"
        if question.model is None:
            return "no model was named"
        try:
            with trace.stage("probe"):
                result = await self._probe.result(question.model, language)
        except Unavailable as error:
            if question.mode == "generative":
                raise
            return str(error)
        return None if result.has_passed else result.reason(question.model.info.name, language)

    # -- the documents' own words --

    async def _quote(
        self,
        question: Question,
        found: Retrieved,
        sentences: tuple[EvidenceSentence, ...],
        trace: QueryTrace,
        details: dict[str, Any],
    ) -> AsyncGenerator[AnswerEvent | Outcome, None]:
        with trace.stage("score_sentences"):
            scored = await score_sentences(
                found.query,
                found.terms,
                found.query_vector,
                sentences,
                embedder=self._embedder,
                embedder_id=question.collection.embedder_id,
            )
        extract = compose(choose(scored))
        trace.scored(scored, extract.sentences)
        for event in _events_of(extract):
            yield event
        yield VerdictReached("answered")
        yield Outcome("answered", extract.text, extract.citations, details=details)

    # -- a model's words --

    async def _write(
        self,
        question: Question,
        found: Retrieved,
        sentences: tuple[EvidenceSentence, ...],
        trace: QueryTrace,
    ) -> AsyncGenerator[AnswerEvent | Outcome, None]:
        model = question.model
        assert model is not None  # _why_not_write says why otherwise
        written: Written | None = None
        parts = write(self._chat, model, found.query, found.language, sentences)
        with trace.stage("generate"):
            async with aclosing(parts):
                async for part in parts:
                    if isinstance(part, Written):
                        written = part
                    else:
                        yield TokenWritten(part)
        assert written is not None  # the last part, or the stream raised
        name = model.info.name
        if written.answer is None:
            reason = f"model {name!r} found no answer in the passages"
            yield VerdictReached("not_in_documents")
            yield Outcome(mode="generative", model=name, details={"reason": reason})
        elif not any(citation.verified for citation in written.answer.citations):
            failed = sorted({citation.support for citation in written.answer.citations}) or ["no_citation"]
            reason = f"no citation that model {name!r} wrote could be verified ({', '.join(failed)})"
            details: dict[str, Any] = {"reason": reason, "unverified_model": name}
            async with aclosing(self._quote(question, found, sentences, trace, details)) as quoted:
                async for event in quoted:
                    yield event
        else:
            checked = written.answer
            for citation in checked.citations:
                yield CitationChecked(citation)
            details = {
                "sentences": checked.sentences,
                "unsupported_sentences": checked.unsupported_sentences,
                "sentences_read": written.prompt_sentences,
            }
            yield VerdictReached("answered")
            yield Outcome("answered", checked.text, checked.citations, "generative", name, details)


def _events_of(extract: Extract) -> list[AnswerEvent]:
    """Each sentence with its marker, then its citation."""
    events: list[AnswerEvent] = []
    place = 0
    for citation in extract.citations:
        marker_end = extract.text.index("]", citation.answer_end) + 1
        events += [TokenWritten(extract.text[place:marker_end]), CitationChecked(citation)]
        place = marker_end
    return events
