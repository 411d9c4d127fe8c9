"""The record of one question: stages with their seconds, what was found at which rank, why it was answered or not.
Holds ids, offsets and figures; of texts only the question, which is the person's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from terakoya.domain.documents import Answer, Hit
from terakoya.rag.core.abstention import Decision
from terakoya.rag.core.extractive import ScoredSentence

_FIGURES = 5
"""Significant decimals kept."""


class QueryTrace:
    def __init__(self, trace_id: str, **asked: Any) -> None:
        self.id = trace_id
        self.seconds: dict[str, float] = {}
        self._record: dict[str, Any] = dict(asked)
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; one that fails is kept too."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, _FIGURES)

    def rewritten(self, question: str) -> None:
        """The question leans on earlier ones: it is looked for like this."""
        self._record["rewritten"] = question

    def rewriting(self) -> dict[str, str]:
        return {"rewritten": self._record["rewritten"]} if "rewritten" in self._record else {}

    def found(self, language: str, hits: Sequence[Hit], seconds: dict[str, float]) -> None:
        self._record["language"] = language
        self._record["hits"] = [_place_of(hit) for hit in hits]
        self.seconds |= {name: round(value, _FIGURES) for name, value in seconds.items()}

    def decided(self, decision: Decision) -> None:
        self._record["decision"] = {
            "answerable": decision.is_answerable,
            "probability": round(decision.probability, _FIGURES),
            "threshold": decision.threshold,
            "table": decision.table,
            "features": {name: round(value, _FIGURES) for name, value in decision.features.items()},
        }

    def scored(self, sentences: Sequence[ScoredSentence], chosen: Sequence[ScoredSentence]) -> None:
        self._record["sentences"] = [
            {
                "document_id": one.sentence.hit.passage.document_id,
                "start": one.sentence.start,
                "end": one.sentence.end,
                "score": round(one.score, _FIGURES),
                "coverage": round(one.coverage, _FIGURES),
                "similarity": None if one.similarity is None else round(one.similarity, _FIGURES),
                "chosen": one in chosen,
            }
            for one in sentences
        ]

    def answered(self, answer: Answer) -> None:
        self._record |= {
            "mode": answer.mode,
            "model": answer.model,
            "verdict": answer.verdict,
            "reason": answer.details.get("reason"),
            "citations": [
                {
                    "number": citation.number,
                    "document_id": citation.document_id,
                    "passage_id": citation.passage_id,
                    "start": citation.start,
                    "end": citation.end,
                    "support": citation.support,
                    "verified": citation.verified,
                }
                for citation in answer.citations
            ],
        }

    def all_seconds(self) -> dict[str, float]:
        """Seconds a stage, and in all so far."""
        return self.seconds | {"total": round(time.perf_counter() - self._started, _FIGURES)}

    def to_json(self) -> dict[str, Any]:
        return self._record | {"seconds": self.all_seconds()}


def _place_of(hit: Hit) -> dict[str, Any]:
    return {
        "passage_id": hit.passage.id,
        "document_id": hit.passage.document_id,
        "start": hit.passage.start,
        "end": hit.passage.end,
        "score": hit.score,
        "dense_score": hit.dense_score,
        "dense_rank": hit.dense_rank,
        "sparse_score": hit.sparse_score,
        "sparse_rank": hit.sparse_rank,
    }
