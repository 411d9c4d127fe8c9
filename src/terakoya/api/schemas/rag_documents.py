"""Collections and documents as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from terakoya.api.schemas.datasets import ResourceName
from terakoya.domain.documents import DEFAULT_COLLECTION, CollectionInfo, DocumentInfo, DocumentStatus, Language
from terakoya.domain.retrieval import MAX_CANDIDATES, MAX_RRF_K, MIN_CANDIDATES, Fusion, RetrievalSettings
from terakoya.rag.archive_service import AddedFrom
from terakoya.rag.service import Added
from terakoya.rag.sources import MAX_SOURCE_CHARACTERS


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


class DocumentChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tags: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=1000)]
    """In the place of those there are."""


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
    calibrated: bool
    """Whether abstention was fitted to its own questions."""
    created_at: datetime

    @classmethod
    def of(cls, info: CollectionInfo) -> CollectionView:
        facts = {name: getattr(info, name) for name in cls.model_fields if name != "calibrated"}
        return cls.model_validate(facts | {"calibrated": info.abstention is not None})


class CollectionList(BaseModel):
    collections: list[CollectionView]


class DocumentAccepted(BaseModel):
    document_id: str
    task_id: str | None
    """The task that indexes it."""
    duplicate: bool
    """Whether the collection held the same file already; then this is that document."""
    version: int
    replaces: str | None
    """The version that it replaces once it is ready."""

    @classmethod
    def of(cls, added: Added) -> DocumentAccepted:
        document = added.document
        return cls(
            document_id=document.id,
            task_id=document.task_id,
            duplicate=added.is_duplicate,
            version=document.version,
            replaces=document.replaces_id,
        )


class FileOfFolder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE_CHARACTERS)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FilesOfFolder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    collection: Annotated[str, Field(min_length=1, max_length=200)] = DEFAULT_COLLECTION
    files: Annotated[list[FileOfFolder], Field(min_length=1, max_length=1000)]


class UnchangedFiles(BaseModel):
    document_ids: list[str | None]
    """Of each file, in order: the document that has it; null if it has to be sent."""


class ArchiveEntry(BaseModel):
    path: str
    status: Literal["added", "replaced", "unchanged", "refused", "other_type"]
    """``other_type``: a file of a type that is not read, passed over."""
    document_id: str | None = None
    task_id: str | None = None
    error: str | None = None
    error_code: str | None = None

    @classmethod
    def of(cls, one: AddedFrom) -> ArchiveEntry:
        if one.error is not None:
            return cls(path=one.path, status="refused", error=str(one.error), error_code=one.error.code)
        if one.added is None:
            return cls(path=one.path, status="other_type")
        document = one.added.document
        status: Literal["added", "replaced", "unchanged"] = (
            "unchanged" if one.added.is_duplicate else "replaced" if document.replaces_id else "added"
        )
        return cls(path=one.path, status=status, document_id=document.id, task_id=document.task_id)


class ArchiveAccepted(BaseModel):
    entries: list[ArchiveEntry]


class DeletedView(BaseModel):
    """The receipt of a deletion: what was removed, and where."""

    model_config = ConfigDict(from_attributes=True)

    document_id: str
    title: str
    versions: list[int]
    """Of the document and of those before it that went with it, newest first."""
    files: int
    file_bytes: int
    characters: int
    """Of stored text."""
    passages: int
    """Rows with text, terms and embedding."""
    vectors: int | None
    """Points of the search index; null if it could not be asked."""
    index_cleared: bool
    """False while the index was not there to be cleared: it is noted and done then; no search finds any of it."""


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
    tags: list[str]
    notices: list[str]
    content_sha256: str
    source: str | None
    """Path in the folder or archive it came from."""
    replaces_id: str | None
    """The version before it."""
    replaced_by_id: str | None
    recognised: list[tuple[int, float]]
    """Page and confidence in percent, of pages that were read by text recognition."""

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
