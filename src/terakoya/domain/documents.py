"""Documents, the passages they are cut into, and answers with their citations. Knows nothing of files, indexes or
models.

Offsets are code points of a document's stored text: ``text[start:end]`` is the quote, always.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terakoya.domain.retrieval import DocumentFacts, RetrievalSettings

DEFAULT_COLLECTION = "default"
"""Where documents go, and what is asked, unless a collection is named."""
Vector = NDArray[np.float32]
"""One dense vector, [dimension], L2-normalised."""
Terms = dict[int, int]
"""A passage as the lexical index sees it: term id (32 bits) -> how often it occurs."""


class DocumentStatus(StrEnum):
    QUEUED = "queued"
    INDEXING = "indexing"
    READY = "ready"
    FAILED = "failed"
    REPLACED = "replaced"
    """A newer version is asked instead; its file and text are kept."""


class Language(StrEnum):
    """The languages that are analysed each in its own way."""

    JAPANESE = "ja"
    ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    id: str
    name: str
    embedder_id: str
    """The model whose vectors it holds; pinned when it is made."""
    embedder_sha256: str
    dimension: int
    average_length: float
    """Terms a passage that the stored lexical weights assume; 0 before anything is indexed."""
    created_at: datetime
    documents: int = 0
    passages: int = 0
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    """How it is searched unless a question says otherwise."""
    abstention: dict[str, Any] | None = None
    """Coefficients fitted on its own questions; None for those that come with Terakoya."""
    can_filter: bool = True
    """Whether its index knows what documents can be chosen by; one of an earlier version is being made anew."""


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    id: str
    collection_id: str
    title: str
    filename: str
    """As the person called it: a label, never a path."""
    parser: str
    """Row of the parsers' table: "plain", "markdown", "pdf", "docx", ..."""
    size_bytes: int
    content_sha256: str
    version: int
    status: DocumentStatus
    created_at: datetime
    task_id: str | None = None
    error: str | None = None
    error_code: str | None = None
    language: Language | None = None
    pages: int | None = None
    """None where the format has none."""
    characters: int = 0
    passages: int = 0
    notices: tuple[str, ...] = ()
    """What was converted or left out on the way in, in words."""
    source: str | None = None
    """Path in the folder or archive it came from: the same path with other content is its next version."""
    replaces_id: str | None = None
    """The version before it."""
    replaced_by_id: str | None = None
    recognised: tuple[tuple[int, float], ...] = ()
    """(page, confidence in percent) of pages that were read by text recognition."""
    tags: tuple[str, ...] = ()

    @property
    def facts(self) -> DocumentFacts:
        language = "" if self.language is None else self.language.value
        return DocumentFacts(self.parser, language, self.created_at.timestamp(), self.tags)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was removed with a document, and where."""

    document_id: str
    title: str
    versions: tuple[int, ...]
    """Of the document itself and of those before it that went with it, newest first."""
    files: int
    file_bytes: int
    characters: int
    """Of stored text."""
    passages: int
    """Rows with their text, terms and embedding."""
    vectors: int | None
    """Points in the vector index; None if it could not be asked."""
    index_cleared: bool
    """Whether the index holds none of it any more; else it is noted, and done once the index is there. No search
    finds any of it either way."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is found and cited: ``text`` is the document's stored text from ``start`` to ``end``."""

    id: str
    """uuid5 of document, version and ordinal: the same in every index."""
    document_id: str
    version: int
    ordinal: int
    start: int
    end: int
    text: str
    page: int | None = None
    """Of its first character, from 1."""
    heading: tuple[str, ...] = ()
    """Path of headings above it; embedded and indexed with it, never quoted."""


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """What the vector index needs of one passage."""

    id: str
    document_id: str
    terms: Terms
    embedding: Vector


@dataclass(frozen=True, slots=True)
class SparseVector:
    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class IndexPoint:
    id: str
    document_id: str
    dense: Vector
    sparse: SparseVector
    facts: DocumentFacts = field(default_factory=DocumentFacts)


@dataclass(frozen=True, slots=True)
class StoreHit:
    """A point as the vector store found it, best first."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query."""

    passage: Passage
    title: str
    score: float
    """Fused; comparable within one query only."""
    dense_score: float | None = None
    dense_rank: int | None = None
    sparse_score: float | None = None
    sparse_rank: int | None = None


AnswerMode = Literal["extractive", "generative"]
Verdict = Literal["answered", "not_in_documents"]


@dataclass(frozen=True, slots=True)
class Citation:
    number: int
    """As the answer's text has it: [1], [2], ..."""
    document_id: str
    version: int
    passage_id: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str
    """The document's stored text from ``start`` to ``end``."""
    answer_start: int
    answer_end: int
    """The span of the answer that it supports, without its marker."""
    support: str
    """What was checked: "verbatim", "numbers_and_words"; or why it failed: "no_such_passage", "numbers_differ",
    "weak_overlap"."""
    verified: bool


@dataclass(frozen=True, slots=True)
class Answer:
    answer: str
    mode: AnswerMode
    citations: tuple[Citation, ...]
    verdict: Verdict
    trace_id: str
    model: str | None
    """Name of the model that wrote it; None for extractive answers."""
    evidence: tuple[Hit, ...] = ()
    """The nearest passages; what is shown where the documents do not hold the answer."""
    details: dict[str, Any] = field(default_factory=dict)
    """Why this mode spoke, the probability that the documents hold the answer, seconds a stage."""
