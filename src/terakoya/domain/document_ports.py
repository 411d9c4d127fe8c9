"""The ports of the documents path: where documents, vectors and embeddings come from. Implementations live in
``storage/`` and ``models/``; ``bootstrap.py`` joins them.

Repositories are synchronous and thread-safe, called from threads; vector stores and embedders are asynchronous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from terakoya.domain.documents import (
    CollectionInfo,
    DocumentInfo,
    IndexedPassage,
    IndexPoint,
    Language,
    Passage,
    SparseVector,
    StoreHit,
    Terms,
    Vector,
)
from terakoya.domain.retrieval import DocumentFacts, Filters, RetrievalSettings

EVERYTHING = Filters()


class DocumentRepository(Protocol):
    """Collections, documents, their exact text and passages: the truth from which any index can be rebuilt."""

    # -- collections --

    def add_collection(self, name: str, *, embedder_id: str, embedder_sha256: str, dimension: int) -> CollectionInfo:
        """Raises: Conflict if the name is taken; InvalidConfig."""
        ...

    def list_collections(self) -> Sequence[CollectionInfo]:
        """By name."""
        ...

    def find_collection(self, id_or_name: str) -> CollectionInfo:
        """Raises: CollectionNotFound, with close names."""
        ...

    def set_average_length(self, collection_id: str, average_length: float) -> None: ...

    def set_retrieval(self, collection_id: str, settings: RetrievalSettings) -> None:
        """Raises: CollectionNotFound."""
        ...

    def set_abstention(self, collection_id: str, coefficients: dict[str, Any] | None) -> None:
        """Raises: CollectionNotFound."""
        ...

    def set_can_filter(self, collection_id: str) -> None:
        """Its index was made with every document's facts."""
        ...

    def actual_average_length(self, collection_id: str) -> float:
        """Terms a passage as they are stored now; 0 without passages."""
        ...

    def delete_collection(self, collection_id: str) -> None:
        """Rows and files of it and of its documents. Raises: CollectionNotFound."""
        ...

    # -- documents --

    def add_document(
        self,
        collection_id: str,
        upload: Path,
        *,
        title: str,
        filename: str,
        parser: str,
        content_sha256: str,
        source: str | None = None,
        replaces: DocumentInfo | None = None,
    ) -> DocumentInfo:
        """Move the upload into the store and add its row, both on disk when this returns; status "queued". What it
        ``replaces`` stays as it is until this one is ready.

        Raises: Conflict if the collection holds a document of the same bytes; CollectionNotFound.
        """
        ...

    def find_duplicate(self, collection_id: str, content_sha256: str) -> DocumentInfo | None:
        """One that was not replaced."""
        ...

    def find_source(self, collection_id: str, source: str) -> DocumentInfo | None:
        """The newest version of what came from there, whatever its state."""
        ...

    def versions(self, document_id: str) -> Sequence[DocumentInfo]:
        """It and those before and after it, newest first. Raises: DocumentNotFound."""
        ...

    def find_document(self, document_id: str) -> DocumentInfo:
        """Raises: DocumentNotFound."""
        ...

    def list_documents(
        self, collection_id: str | None = None, *, limit: int = 1000, replaced: bool = False
    ) -> Sequence[DocumentInfo]:
        """Newest first; ``replaced``: those as well that have a newer version."""
        ...

    def unfinished_documents(self) -> Sequence[DocumentInfo]:
        """Those queued or being indexed, oldest first."""
        ...

    def file_of(self, document_id: str) -> Path:
        """The original file."""
        ...

    def text_of(self, document_id: str) -> str:
        """The stored text, "" before it was parsed. Raises: DocumentNotFound."""
        ...

    def set_task(self, document_id: str, task_id: str) -> None: ...

    def set_indexing(self, document_id: str) -> None: ...

    def set_failed(self, document_id: str, *, error: str, error_code: str) -> None: ...

    def save_parsed(
        self,
        document_id: str,
        *,
        text: str,
        title: str | None,
        language: Language,
        pages: int | None,
        notices: Sequence[str],
        passages: Sequence[tuple[Passage, Terms]],
        recognised: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Replace whatever an earlier attempt stored. ``title``: found in the document, used if none was given.

        Raises: DocumentNotFound if it was deleted meanwhile.
        """
        ...

    def passages_to_embed(self, document_id: str, *, limit: int) -> Sequence[Passage]:
        """Passages without an embedding, in order."""
        ...

    def save_embeddings(self, embeddings: Mapping[str, Vector]) -> None:
        """By passage id; ids that are gone are ignored."""
        ...

    def set_ready(self, document_id: str) -> Sequence[str]:
        """Once every passage is in the index. The versions before it are replaced at the same moment: their passages
        go, and their points are noted to be removed. Return their ids. Raises: DocumentNotFound.
        """
        ...

    def set_tags(self, document_id: str, tags: Sequence[str]) -> None:
        """Raises: DocumentNotFound."""
        ...

    def delete_document(self, document_id: str) -> None:
        """Remove rows and file, noting that the index must forget it too. Raises: DocumentNotFound."""
        ...

    def deletions_due(self) -> Sequence[tuple[str, str]]:
        """(collection id, document id) of deleted documents that the index may still hold."""
        ...

    def deletion_done(self, document_id: str) -> None: ...

    # -- reading for the index and for answers --

    def indexed_passages(self, collection_id: str, document_id: str | None = None) -> Iterator[IndexedPassage]:
        """Every embedded passage, streamed."""
        ...

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """Passages of ready documents by id; what is not there any more is absent."""
        ...

    def titles(self, document_ids: Sequence[str]) -> dict[str, str]: ...


class VectorStore(Protocol):
    """Points of one dense and one sparse vector each, by collection. What a write acknowledges survives a power cut."""

    async def create(self, collection_id: str, *, dimension: int) -> None:
        """Make an empty collection; one that is there is left as it is. Raises: Conflict on another dimension."""
        ...

    async def exists(self, collection_id: str) -> bool: ...

    async def drop(self, collection_id: str) -> None:
        """Gone with all its points; none there is no error."""
        ...

    async def upsert(self, collection_id: str, points: Sequence[IndexPoint]) -> None:
        """Add or replace. Raises: InvalidConfig on a dimension that differs; RAGError without the collection."""
        ...

    async def delete_document(self, collection_id: str, document_id: str) -> None:
        """Remove every point of a document; none there is no error."""
        ...

    async def set_facts(self, collection_id: str, document_id: str, facts: DocumentFacts) -> None:
        """Change what every point of a document can be chosen by; none there is no error."""
        ...

    async def count(self, collection_id: str, *, document_id: str | None = None) -> int: ...

    async def search_dense(
        self, collection_id: str, vector: Vector, *, limit: int, filters: Filters = EVERYTHING
    ) -> Sequence[StoreHit]:
        """By cosine, best first; ``filters`` hold inside the store."""
        ...

    async def search_sparse(
        self, collection_id: str, vector: SparseVector, *, limit: int, filters: Filters = EVERYTHING
    ) -> Sequence[StoreHit]:
        """By dot product with the store's own inverse document frequencies (``Modifier.IDF``), best first."""
        ...

    async def optimize(self, collection_id: str) -> None:
        """Build what makes search fast; long, never on a request's path."""
        ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Texts to L2-normalised vectors, [texts, dimension] float32, by a registered model."""

    async def embed_passages(self, model_id: str, texts: Sequence[str]) -> Vector:
        """In the background: queries go first. Raises: ModelNotFound, ModelLoadError, Unavailable."""
        ...

    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        """Raises: ModelNotFound, ModelLoadError, Unavailable."""
        ...


class TraceRepository(Protocol):
    """What each query did, for a bounded number of queries."""

    def save(self, trace_id: str, collection_id: str, trace: dict[str, Any]) -> None: ...

    def find(self, trace_id: str) -> dict[str, Any]:
        """Raises: NotFound."""
        ...


class ProbeRepository(Protocol):
    """Whether a model has shown, in a language, that it can answer from passages and cite them."""

    def find(self, model_sha256: str, language: Language, probe: str) -> dict[str, Any] | None:
        """``probe``: the version of the probe; results of another version do not count."""
        ...

    def save(self, model_sha256: str, language: Language, probe: str, result: dict[str, Any]) -> None: ...
