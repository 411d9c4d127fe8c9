"""Puts one question to a collection as the product does, and notes what came of it. Keeps no trace: the traces are the
person's own questions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from terakoya.domain.documents import CollectionInfo, Hit
from terakoya.domain.evaluation import Configuration, SetQuestion
from terakoya.domain.models import ModelArtifact
from terakoya.rag.core.abstention import Decision, decide
from terakoya.rag.core.calibration import table_of
from terakoya.rag.core.engine import CANDIDATES
from terakoya.rag.core.speaking import AskedMode, Outcome, Question, Speaker
from terakoya.rag.core.trace import QueryTrace
from terakoya.rag.evaluation.judging import Ranked, holds, judge_ranks, ranks_of, supports, without
from terakoya.rag.evaluation.locating import Target
from terakoya.rag.retrieval.retriever import Retrieved, Retriever


@dataclass(frozen=True, slots=True)
class Measured:
    """One question under one configuration."""

    ranked: Ranked | None
    """None for a question that is not answerable."""
    probability: float
    """That the documents hold the answer, as abstention sees it."""
    probability_without: float | None
    """The same with what answers it taken out of what was found; None for a question that is not answerable."""
    threshold: float
    search_seconds: float
    answer_seconds: float | None = None
    """From the question to the whole answer; None where answers are not measured."""
    answered: bool | None = None
    correct: bool | None = None
    """Whether the answer holds an expected one; None where none is known."""
    citations: int = 0
    supported_citations: int = 0
    """Those that quote what should be found."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Asker:
    """Under one configuration."""

    def __init__(
        self,
        retriever: Retriever,
        speaker: Speaker,
        collection: CollectionInfo,
        configuration: Configuration,
        artifact: ModelArtifact | None,
    ) -> None:
        self._retriever = retriever
        self._speaker = speaker
        self._collection = collection
        self._configuration = configuration
        self._artifact = artifact

    async def ask(self, question: SetQuestion, targets: Sequence[Target]) -> Measured:
        """Raises: InvalidQuery; CitationProbeFailed if the model may not write in the question's language;
        Unavailable.
        """
        started = time.perf_counter()
        found = await self._retriever.search(
            self._collection, question.question, limit=CANDIDATES, settings=self._configuration.retrieval
        )
        searched = time.perf_counter()
        judged = await asyncio.to_thread(self._judge, question, targets, found)
        ranked, probability, probability_without, threshold, decide_seconds = judged
        outcome, spoke_seconds = None, 0.0
        if self._configuration.answers != "none":
            outcome, spoke_seconds = await self._answer(question, found, is_answerable=probability >= threshold)
        search_seconds = searched - started
        measured = Measured(ranked, probability, probability_without, threshold, search_seconds)
        if outcome is None:
            return measured
        return _with_answer(measured, outcome, question, targets, search_seconds + decide_seconds + spoke_seconds)

    def _judge(
        self, question: SetQuestion, targets: Sequence[Target], found: Retrieved
    ) -> tuple[Ranked | None, float, float | None, float, float]:
        started = time.perf_counter()
        decision = self._decide(found, found.hits)
        seconds = time.perf_counter() - started
        if not question.answerable:
            return None, decision.probability, None, decision.threshold, seconds
        ranked = judge_ranks(ranks_of(found.hits, targets, question.answers))
        rest = without(found.hits, targets, question.answers)
        return ranked, decision.probability, self._decide(found, rest).probability, decision.threshold, seconds

    def _decide(self, found: Retrieved, hits: Sequence[Hit]) -> Decision:
        return decide(
            found.query,
            found.language,
            found.terms,
            hits,
            passages=self._collection.passages,
            table=table_of(self._collection),
        )

    async def _answer(self, question: SetQuestion, found: Retrieved, *, is_answerable: bool) -> tuple[Outcome, float]:
        started = time.perf_counter()
        outcome = Outcome()
        mode: AskedMode = "generative" if self._configuration.answers == "generative" else "extractive"
        asked = Question(self._collection, question.question, mode, self._artifact)
        trace = QueryTrace("evaluation")
        if mode == "generative":
            await self._speaker.require_probe(asked, found.language, trace)
        if is_answerable:
            async with aclosing(self._speaker.speak(asked, found, trace)) as parts:
                async for part in parts:
                    if isinstance(part, Outcome):
                        outcome = part
        return outcome, time.perf_counter() - started


def _with_answer(
    measured: Measured, outcome: Outcome, question: SetQuestion, targets: Sequence[Target], seconds: float
) -> Measured:
    verified = [citation for citation in outcome.citations if citation.verified]
    answered = outcome.verdict == "answered"
    return replace(
        measured,
        answer_seconds=seconds,
        answered=answered,
        correct=answered and holds(outcome.text, question.answers) if question.answers else None,
        citations=len(verified),
        supported_citations=sum(supports(citation, targets, question.answers) for citation in verified),
    )
