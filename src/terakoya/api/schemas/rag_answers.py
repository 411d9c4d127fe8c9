"""Questions and answers as clients see them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from terakoya.domain.documents import DEFAULT_COLLECTION, Answer, AnswerMode, Citation, Hit, Verdict
from terakoya.domain.retrieval import Filters
from terakoya.rag.app import MAX_TOP_K
from terakoya.rag.core.session import MAX_EARLIER
from terakoya.rag.core.speaking import AskedMode

MAX_QUERY_IN_BODY = 200_000
"""Longer than any question may be: one that is too long is told so by its length, as an invalid query."""

QueryText = Annotated[str, Field(max_length=MAX_QUERY_IN_BODY, description="1 to 8,000 characters")]
CollectionName = Annotated[str, Field(min_length=1, max_length=200, description="name or id")]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K)]


class Searched(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: QueryText
    collection: CollectionName = DEFAULT_COLLECTION
    top_k: TopK = 10


class Filtered(BaseModel):
    filters: Annotated[
        dict[str, Any] | None,
        Field(
            max_length=20,
            description="which documents: document, type, language, tags (lists, any of), date_from, date_to (added)",
        ),
    ] = None

    def chosen(self) -> Filters:
        """Raises: InvalidConfig, naming an unknown field."""
        return Filters.of(self.filters or {})


class SearchRequest(Filtered, Searched):
    """What to look for."""


class WhyRequest(SearchRequest):
    """Which document, and what of it, was not in the answer."""

    document_id: Annotated[str, Field(min_length=1, max_length=200)]
    quote: Annotated[str, Field(min_length=1, max_length=2_000)] | None = None
    """Words of the passage that was missed; without them the passage that came furthest is told of."""


class AddressedQuery(Searched):
    mode: AskedMode = "auto"
    """"extractive" quotes sentences; "generative" lets ``model`` write; "auto" lets it if it has shown that it can."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class QueryRequest(Filtered, AddressedQuery):
    """What to answer."""

    earlier: Annotated[list[QueryText], Field(max_length=MAX_EARLIER)] = []
    """Questions of the same talk before it, oldest first, each as ``details.rewritten`` has it if that is there: one
    that leans on them ("what about cushions?") is looked for with their topic."""


class HitView(BaseModel):
    document_id: str
    passage_id: str
    title: str
    page: int | None
    heading: list[str]
    text: str
    start: int
    end: int
    score: float

    @classmethod
    def of(cls, hit: Hit) -> HitView:
        passage = hit.passage
        return cls(
            document_id=passage.document_id,
            passage_id=passage.id,
            title=hit.title,
            page=passage.page,
            heading=list(passage.heading),
            text=passage.text,
            start=passage.start,
            end=passage.end,
            score=hit.score,
        )


class SearchResult(BaseModel):
    hits: list[HitView]
    trace_id: str


class CitationView(BaseModel):
    number: int
    """As the answer has it; 0 for one that failed, which the answer does not number."""
    document_id: str
    version: int
    passage_id: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str
    answer_start: int
    answer_end: int
    support: str
    verified: bool

    @classmethod
    def of(cls, citation: Citation) -> CitationView:
        return cls.model_validate(asdict(citation))


class AnswerView(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    answer: str
    """Empty where the documents do not hold it."""
    mode: AnswerMode
    citations: list[CitationView]
    verdict: Verdict
    trace_id: str
    model: str | None
    evidence: list[HitView]
    details: dict[str, Any]

    @classmethod
    def of(cls, answer: Answer) -> AnswerView:
        return cls(
            answer=answer.answer,
            mode=answer.mode,
            citations=[CitationView.of(citation) for citation in answer.citations],
            verdict=answer.verdict,
            trace_id=answer.trace_id,
            model=answer.model,
            evidence=[HitView.of(hit) for hit in answer.evidence],
            details=answer.details,
        )
