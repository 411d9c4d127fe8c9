"""Collections and documents as clients see them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from terakoya.api.schemas.datasets import ResourceName
from terakoya.domain.documents import CollectionInfo, DocumentInfo, DocumentStatus, Language


class NewCollection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ResourceName


class CollectionView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    embedder_id: str
    """The model whose vectors it holds."""
    dimension: int
    documents: int
    passages: int
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
