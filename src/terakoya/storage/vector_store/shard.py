"""One open Qdrant Edge shard: every call into the library, and what its errors mean. Knows no collection names and no
event loop.

The library holds Python's global lock for the whole of each call, so calls are kept short.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terakoya.domain.documents import IndexPoint, SparseVector, StoreHit, Vector
from terakoya.domain.retrieval import DocumentFacts, Filters
from terakoya.exceptions import AppException, Conflict, RAGError, StorageFull

if TYPE_CHECKING:
    import qdrant_edge

DENSE, SPARSE, DOCUMENT = "dense", "sparse", "document_id"
TYPE, LANGUAGE, ADDED, TAGS = "type", "language", "added", "tags"
KEYWORDS = (DOCUMENT, TYPE, LANGUAGE, TAGS)
"""Fields of a point that hold words; ADDED holds seconds."""
_PANIC_MODULE = "pyo3_runtime"
_POINTS_A_CALL = 64
"""About 5 ms."""


class Shard:
    """Thread-safe: one lock around every call."""

    def __init__(self, shard: qdrant_edge.EdgeShard) -> None:
        import qdrant_edge

        self._edge = qdrant_edge
        self._shard = shard
        self._lock = threading.Lock()

    @classmethod
    def create(cls, folder: Path, *, dimension: int) -> Shard:
        """Make an empty shard in a new folder, on disk when this returns."""
        import qdrant_edge as edge

        folder.mkdir(parents=True)
        with errors_are_named(folder):
            config = edge.EdgeConfig(
                vectors={DENSE: edge.EdgeVectorParams(dimension, edge.Distance.Cosine)},
                sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            )
            shard = cls(edge.EdgeShard.create(str(folder), config))
            for name in KEYWORDS:
                shard._update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword))
            shard._update(edge.UpdateOperation.create_field_index(ADDED, edge.PayloadSchemaType.Float))
        shard.flush()
        return shard

    @classmethod
    def load(cls, folder: Path) -> Shard:
        """Raises: Conflict if another process has it; RAGError if its files are not whole."""
        import qdrant_edge as edge

        with errors_are_named(folder):
            return cls(edge.EdgeShard.load(str(folder)))

    def upsert(self, points: Sequence[IndexPoint]) -> None:
        edge = self._edge
        for start in range(0, len(points), _POINTS_A_CALL):
            batch = [
                edge.Point(
                    point.id,
                    {
                        DENSE: point.dense.tolist(),
                        SPARSE: edge.SparseVector(list(point.sparse.indices), list(point.sparse.values)),
                    },
                    {DOCUMENT: point.document_id, **payload_of(point.facts)},
                )
                for point in points[start : start + _POINTS_A_CALL]
            ]
            self._update(edge.UpdateOperation.upsert_points(batch))

    def delete_document(self, document_id: str) -> None:
        self._update(self._edge.UpdateOperation.delete_points_by_filter(self._of_document(document_id)))

    def set_facts(self, document_id: str, facts: DocumentFacts) -> None:
        chosen = self._of_document(document_id)
        self._update(self._edge.UpdateOperation.set_payload_by_filter(chosen, payload_of(facts)))

    def flush(self) -> None:
        """Make everything written so far survive a power cut."""
        with self._calling():
            self._shard.flush()

    def count(self, document_id: str | None) -> int:
        chosen = None if document_id is None else self._of_document(document_id)
        with self._calling():
            return self._shard.count(self._edge.CountRequest(exact=True, filter=chosen))

    def search_dense(self, vector: Vector, limit: int, filters: Filters) -> list[StoreHit]:
        return self._search(self._edge.Query.Nearest(vector.tolist(), using=DENSE), limit, filters)

    def search_sparse(self, vector: SparseVector, limit: int, filters: Filters) -> list[StoreHit]:
        sparse = self._edge.SparseVector(list(vector.indices), list(vector.values))
        return self._search(self._edge.Query.Nearest(sparse, using=SPARSE), limit, filters)

    def optimize(self) -> None:
        """Minutes for large shards, during which no other thread of the process runs."""
        with self._calling():
            self._shard.optimize()

    def close(self) -> None:
        with self._calling():
            self._shard.close()

    def _search(self, query: qdrant_edge.Query, limit: int, filters: Filters) -> list[StoreHit]:
        request = self._edge.QueryRequest(limit=limit, query=query, filter=self._filter(filters))
        with self._calling():
            return [StoreHit(str(point.id), point.score) for point in self._shard.query(request)]

    def _update(self, operation: qdrant_edge.UpdateOperation) -> None:
        with self._calling():
            self._shard.update(operation)

    def _of_document(self, document_id: str) -> qdrant_edge.Filter:
        edge = self._edge
        chosen: qdrant_edge.Filter = edge.Filter(
            must=[edge.FieldCondition(DOCUMENT, match=edge.MatchAny([document_id]))]
        )
        return chosen

    def _filter(self, filters: Filters) -> qdrant_edge.Filter | None:
        if filters.is_empty:
            return None
        edge = self._edge
        conditions = [
            edge.FieldCondition(name, match=edge.MatchAny(list(values))) for name, values in words_of(filters).items()
        ]
        if filters.date_from is not None or filters.date_to is not None:
            days = edge.RangeFloat(gte=filters.added_from_seconds, lt=filters.added_before_seconds)
            conditions.append(edge.FieldCondition(ADDED, range=days))
        chosen: qdrant_edge.Filter = edge.Filter(must=conditions)
        return chosen

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with self._lock, errors_are_named():
            yield


def payload_of(facts: DocumentFacts) -> dict[str, Any]:
    """Return what a point holds of its document beside the id."""
    return {TYPE: facts.type, LANGUAGE: facts.language, ADDED: facts.added_seconds, TAGS: list(facts.tags)}


def words_of(filters: Filters) -> dict[str, tuple[str, ...]]:
    """Return, by a point's field, the words of which it must have one."""
    given = {DOCUMENT: filters.document, TYPE: filters.type, LANGUAGE: filters.language, TAGS: filters.tags}
    return {name: values for name, values in given.items() if values is not None}


@contextmanager
def errors_are_named(folder: Path | None = None) -> Iterator[None]:
    """Turn the library's errors, all of the class Exception, into ours. ``folder``: what is being opened.

    A panic of the library, which damaged files cause, is a BaseException; it is an error like the others here.
    """
    try:
        yield
    except AppException:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != _PANIC_MODULE:
            raise
        raise named_error(str(error), folder) from error


def named_error(reason: str, folder: Path | None) -> AppException:
    """Return our error for the library's, or for damage that is seen before the library is asked."""
    if "No space left" in reason or "os error 28" in reason:
        return StorageFull(f"no space left for the search index ({reason}); free some space")
    if folder is None:
        return RAGError(
            f"the search index failed: {reason}. If it does so again, `terakoya documents rebuild COLLECTION` makes it "
            "anew from the database"
        )
    if "WouldBlock" in reason:
        return Conflict(f"the search index in {str(folder)!r} is open in another process; stop that one first")
    return RAGError(
        f"the search index in {str(folder)!r} cannot be opened: {reason}. Nothing was deleted; the documents are "
        "safe in the database, and `terakoya documents rebuild COLLECTION` makes the index anew from them"
    )
