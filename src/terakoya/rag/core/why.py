"""Why a passage was not in an answer: follows it through every stage of a question and says where it was lost, with its
ranks and scores. Keeps nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from terakoya.domain.document_ports import DocumentRepository, Embedder
from terakoya.domain.documents import DocumentInfo, DocumentStatus, Passage, StoreHit
from terakoya.domain.retrieval import Filters
from terakoya.exceptions import InvalidConfig
from terakoya.rag.core.abstention import decide
from terakoya.rag.core.calibration import table_of
from terakoya.rag.core.evidence import evidence_sentences
from terakoya.rag.core.extractive import choose, score_sentences
from terakoya.rag.core.speaking import PASSAGES_READ, Question
from terakoya.rag.indexing.indexer import passage_id
from terakoya.rag.retrieval.fusion import fuse
from terakoya.rag.retrieval.retriever import Retrieved, Retriever
from terakoya.rag.text_places import squeeze

RANKED = 50
"""Passages that a question ranks, of which the decision is made."""
DEEPEST_RANK = 10_000
"""A passage behind this rank of a search is said to be behind it."""
LostAt = Literal["document", "filter", "search", "top_k", "decision", "reading", "sentences", "nowhere"]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """``lost_at``: the first stage it did not pass; "nowhere" if the answer quotes it."""

    lost_at: LostAt
    reason: str
    document_id: str
    passage_id: str | None = None
    dense_rank: int | None = None
    dense_score: float | None = None
    sparse_rank: int | None = None
    """None if it has none of the question's words, or is behind DEEPEST_RANK."""
    sparse_score: float | None = None
    fused_rank: int | None = None
    fused_score: float | None = None
    probability: float | None = None
    threshold: float | None = None
    sentence_score: float | None = None
    """Of its best sentence."""
    chosen_score: float | None = None
    """Of the best sentence of all."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class PassageTracker:
    def __init__(self, *, documents: DocumentRepository, retriever: Retriever, embedder: Embedder) -> None:
        self._documents = documents
        self._retriever = retriever
        self._embedder = embedder

    async def follow(self, question: Question, document_id: str, *, quote: str | None = None) -> Whereabouts:
        """Follow the document's passages, or those that hold the quote, and tell of the one that came furthest.

        Raises: DocumentNotFound; InvalidConfig for a document of another collection or a quote it does not hold;
        InvalidQuery; Unavailable.
        """
        document = await asyncio.to_thread(self._documents.find_document, document_id)
        if document.collection_id != question.collection.id:
            raise InvalidConfig(f"{document.title!r} is not in the collection {question.collection.name!r}")
        if document.status is not DocumentStatus.READY:
            return Whereabouts("document", f"the document is {document.status.value}, not ready", document.id)
        if (field := _refused_by(question.filters, document)) is not None:
            return Whereabouts("filter", f"the filter {field!r} leaves the document out", document.id)
        passages = await asyncio.to_thread(self._passages, document, quote)
        return await self._through_search(question, document, passages)

    def _passages(self, document: DocumentInfo, quote: str | None) -> dict[str, Passage]:
        ids = [passage_id(document.id, document.version, ordinal) for ordinal in range(document.passages)]
        found = self._documents.passages(ids)
        if quote is None:
            return found
        wanted, _ = squeeze(quote)
        holding = {key: passage for key, passage in found.items() if wanted in squeeze(passage.text)[0]}
        if not wanted or not holding:
            raise InvalidConfig(f"no passage of {document.title!r} holds {quote[:60]!r} as a whole")
        return holding

    async def _through_search(
        self, question: Question, document: DocumentInfo, passages: dict[str, Passage]
    ) -> Whereabouts:
        settings = question.collection.retrieval
        dense, sparse = await self._retriever.rankings(
            question.collection, question.text, candidates=DEEPEST_RANK, filters=question.filters
        )
        by_dense, by_sparse = _places(dense), _places(sparse)
        candidates = max(settings.candidates, question.top_k)
        joined = fuse(dense[:candidates], sparse[:candidates], settings)
        fused = {one.id: (rank, one.score) for rank, one in enumerate(joined, start=1)}
        behind = len(fused) + 1
        best = min(
            passages,
            key=lambda key: (
                fused.get(key, (behind, 0.0))[0],
                min(by_dense.get(key, (DEEPEST_RANK, 0.0))[0], by_sparse.get(key, (DEEPEST_RANK, 0.0))[0]),
            ),
        )
        dense_rank, dense_score = by_dense.get(best, (None, None))
        sparse_rank, sparse_score = by_sparse.get(best, (None, None))
        fused_rank, fused_score = fused.get(best, (None, None))
        seen = Seen(best, dense_rank, dense_score, sparse_rank, sparse_score, fused_rank, fused_score)
        if fused_rank is None:
            reason = (
                f"neither search has it among its first {candidates}: by meaning it is {_nth(dense_rank)}, by words "
                f"{_nth(sparse_rank) if sparse_rank else 'it shares none with the question'}"
            )
            return seen.lost("search", reason, document)
        if fused_rank > question.top_k:
            reason = f"together the searches rank it {_nth(fused_rank)}; {question.top_k} are shown"
            return seen.lost("top_k", reason, document)
        return await self._through_answer(question, document, seen)

    async def _through_answer(self, question: Question, document: DocumentInfo, seen: Seen) -> Whereabouts:
        found = await self._retriever.search(
            question.collection,
            question.text,
            limit=max(question.top_k, RANKED),
            settings=question.collection.retrieval,
            filters=question.filters,
        )
        decision = await asyncio.to_thread(
            decide,
            found.query,
            found.language,
            found.terms,
            found.hits,
            passages=question.collection.passages,
            table=table_of(question.collection),
        )
        facts = {"probability": decision.probability, "threshold": decision.threshold}
        if not decision.is_answerable:
            reason = (
                f"it is shown, but the chance that the documents hold the answer is judged to be "
                f"{decision.probability:.2f}, under {decision.threshold:.2f}, so nothing is answered"
            )
            return seen.lost("decision", reason, document, **facts)
        assert seen.fused_rank is not None  # it is among the first
        if seen.fused_rank > PASSAGES_READ:
            reason = f"it is shown {_nth(seen.fused_rank)}; answers are made of the first {PASSAGES_READ}"
            return seen.lost("reading", reason, document, **facts)
        return await self._through_sentences(question, document, seen, found, facts)

    async def _through_sentences(
        self, question: Question, document: DocumentInfo, seen: Seen, found: Retrieved, facts: dict[str, Any]
    ) -> Whereabouts:
        sentences = await asyncio.to_thread(evidence_sentences, found.hits[:PASSAGES_READ])
        scored = await score_sentences(
            found.query,
            found.terms,
            found.query_vector,
            sentences,
            embedder=self._embedder,
            embedder_id=question.collection.embedder_id,
        )
        own = [one for one in scored if one.sentence.hit.passage.id == seen.passage_id]
        if not own:
            return seen.lost("sentences", "none of its sentences can be quoted", document, **facts)
        facts |= {"sentence_score": own[0].score, "chosen_score": scored[0].score}
        if not any(one in own for one in choose(scored)):
            reason = f"its best sentence scores {own[0].score:.2f}, the best of all {scored[0].score:.2f}"
            return seen.lost("sentences", reason, document, **facts)
        return seen.lost("nowhere", "the extractive answer quotes it", document, **facts)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the passage so far."""

    passage_id: str
    dense_rank: int | None
    dense_score: float | None
    sparse_rank: int | None
    sparse_score: float | None
    fused_rank: int | None
    fused_score: float | None

    def lost(self, lost_at: LostAt, reason: str, document: DocumentInfo, **facts: Any) -> Whereabouts:
        return Whereabouts(lost_at, reason, document.id, **asdict(self), **facts)


def _refused_by(filters: Filters, document: DocumentInfo) -> str | None:
    """Return the first field that leaves the document out."""
    facts = document.facts
    if filters.document is not None and document.id not in filters.document:
        return "document"
    if filters.type is not None and facts.type not in filters.type:
        return "type"
    if filters.language is not None and facts.language not in filters.language:
        return "language"
    if filters.tags is not None and not set(filters.tags) & set(facts.tags):
        return "tags"
    if (start := filters.added_from_seconds) is not None and facts.added_seconds < start:
        return "date_from"
    if (end := filters.added_before_seconds) is not None and facts.added_seconds >= end:
        return "date_to"
    return None


def _places(hits: Sequence[StoreHit]) -> dict[str, tuple[int, float]]:
    return {hit.id: (rank, hit.score) for rank, hit in enumerate(hits, start=1)}


def _nth(rank: int | None) -> str:
    return f"behind the first {DEEPEST_RANK:,}" if rank is None else f"number {rank:,}"
