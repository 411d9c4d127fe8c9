"""Collections and documents as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from terakoya.api.schemas.datasets import ResourceName
from terakoya.domain.documents import CollectionInfo, DocumentInfo, DocumentStatus, Language
from terakoya.domain.retrieval import MAX_CANDIDATES, MAX_RRF_K, MIN_CANDIDATES, Fusion, RetrievalSettings


class NewCollection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ResourceName


class RetrievalView(BaseModel):
    """How a collection is searched."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    fusion: Fusion = "dbsf"
    """"dbsf" by the distribution of scores, "rrf" by rank, "weighted" by scores brought to 0..1."""
    dense_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the search by meaning; the rest is that of the search by words."""
    rrf_k: Annotated[int, Field(ge=1, le=MAX_RRF_K)] = 60
    candidates: Annotated[int, Field(ge=MIN_CANDIDATES, le=MAX_CANDIDATES)] = 50
    """Passages that each of the two searches hands to the fusion."""

    def settings(self) -> RetrievalSettings:
        return RetrievalSettings.of(self.model_dump())


class CollectionChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    retrieval: RetrievalView


class CollectionView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    embedder_id: str
    """The model whose vectors it holds."""
    dimension: int
    documents: int
    passages: int
    retrieval: RetrievalView
    created_at: datetime

    @classmethod
    def of(cls, info: CollectionInfo) -> CollectionView:
        return cls.model_validate(info)


class CollectionList(BaseModel):
    collections: list[CollectionView]


class DocumentAccepted(BaseModel):
    document_id: str
    task_id: str | None
    """The task that indexes it."""
    duplicate: bool
    """Whether the collection held the same file already; then this is that document."""


class DocumentView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    collection_id: str
    collection: str
    title: str
    filename: str
    parser: str
    status: DocumentStatus
    language: Language | None
    pages: int | None
    characters: int
    passages: int
    size_bytes: int
    version: int
    error: str | None
    error_code: str | None
    task_id: str | None
    created_at: datetime
    notices: list[str]

    @classmethod
    def of(cls, info: DocumentInfo, collection: str) -> DocumentView:
        facts = {name: getattr(info, name) for name in cls.model_fields if name != "collection"}
        return cls.model_validate(facts | {"collection": collection})


class DocumentList(BaseModel):
    documents: list[DocumentView]


class TextView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    text: str
    start: int
    """In code points of the stored text, as in citations."""
    end: int
    characters: int
    """Of the whole text."""
