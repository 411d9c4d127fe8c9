"""The vector store on a Qdrant server or cluster, which only the administrator names. The same points and the same
search as in process; knows nothing of documents beyond their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from terakoya.domain.document_ports import EVERYTHING
from terakoya.domain.documents import IndexPoint, SparseVector, StoreHit, Vector
from terakoya.domain.retrieval import DocumentFacts, Filters
from terakoya.exceptions import Conflict, InvalidConfig, RAGError, Unavailable
from terakoya.storage.vector_store.checking import check_points, check_vector
from terakoya.storage.vector_store.shard import ADDED, DENSE, DOCUMENT, KEYWORDS, SPARSE, payload_of, words_of

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient
    from qdrant_client.http.models import FieldCondition, Filter
    from qdrant_client.http.models import SparseVector as SparseVectorModel

_POINTS_A_REQUEST = 64


class ServerVectorStore:
    """Owns the client, which ``close`` closes. Collections are named ``prefix`` + id."""

    def __init__(self, client: AsyncQdrantClient, *, prefix: str = "terakoya-") -> None:
        from qdrant_client import models

        self._client = client
        self._prefix = prefix
        self._models = models
        self._dimensions: dict[str, int] = {}

    async def create(self, collection_id: str, *, dimension: int) -> None:
        if not 1 <= dimension <= 65_536:
            raise InvalidConfig(f"vectors have 1 to 65,536 dimensions; got {dimension!r}")
        models, name = self._models, self._name(collection_id)
        if await self.exists(collection_id):
            found = await self._dimension(collection_id)
            if found != dimension:
                raise Conflict(
                    f"the index of {collection_id!r} has vectors of {found} dimensions, not {dimension}; "
                    "drop it before making another"
                )
        else:
            with _errors_are_named():
                await self._client.create_collection(
                    name,
                    vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
                    sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                )
        with _errors_are_named():
            # Done again where it exists: a crash may have come between the two.
            for field in KEYWORDS:
                await self._client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)
            await self._client.create_payload_index(name, ADDED, models.PayloadSchemaType.FLOAT)

    async def exists(self, collection_id: str) -> bool:
        with _errors_are_named():
            return await self._client.collection_exists(self._name(collection_id))

    async def drop(self, collection_id: str) -> None:
        self._dimensions.pop(collection_id, None)
        with _errors_are_named():
            await self._client.delete_collection(self._name(collection_id))

    async def upsert(self, collection_id: str, points: Sequence[IndexPoint]) -> None:
        check_points(points, await self._dimension(collection_id))
        for start in range(0, len(points), _POINTS_A_REQUEST):
            batch = [
                self._models.PointStruct(
                    id=point.id,
                    vector={DENSE: point.dense.tolist(), SPARSE: self._sparse(point.sparse)},
                    payload={DOCUMENT: point.document_id, **payload_of(point.facts)},
                )
                for point in points[start : start + _POINTS_A_REQUEST]
            ]
            with _errors_are_named():
                await self._client.upsert(self._name(collection_id), batch, wait=True)

    async def delete_document(self, collection_id: str, document_id: str) -> None:
        await self._dimension(collection_id)
        with _errors_are_named():
            selector = self._models.FilterSelector(filter=self._of_document(document_id))
            await self._client.delete(self._name(collection_id), selector, wait=True)

    async def set_facts(self, collection_id: str, document_id: str, facts: DocumentFacts) -> None:
        await self._dimension(collection_id)
        with _errors_are_named():
            await self._client.set_payload(
                self._name(collection_id), payload_of(facts), points=self._of_document(document_id), wait=True
            )

    async def count(self, collection_id: str, *, document_id: str | None = None) -> int:
        await self._dimension(collection_id)
        chosen = None if document_id is None else self._of_document(document_id)
        with _errors_are_named():
            found = await self._client.count(self._name(collection_id), count_filter=chosen, exact=True)
        return found.count

    async def search_dense(
        self, collection_id: str, vector: Vector, *, limit: int, filters: Filters = EVERYTHING
    ) -> Sequence[StoreHit]:
        check_vector(vector, await self._dimension(collection_id))
        return await self._search(collection_id, vector.tolist(), DENSE, limit, filters)

    async def search_sparse(
        self, collection_id: str, vector: SparseVector, *, limit: int, filters: Filters = EVERYTHING
    ) -> Sequence[StoreHit]:
        await self._dimension(collection_id)
        if not vector.indices:  # nothing to look for; not every version takes it as a query
            return []
        return await self._search(collection_id, self._sparse(vector), SPARSE, limit, filters)

    async def optimize(self, collection_id: str) -> None:
        """A server builds its graphs by itself, in the background."""

    async def close(self) -> None:
        await self._client.close()

    async def _search(
        self,
        collection_id: str,
        query: list[float] | SparseVectorModel,
        using: str,
        limit: int,
        filters: Filters,
    ) -> list[StoreHit]:
        chosen = self._filter(filters)
        with _errors_are_named():
            found = await self._client.query_points(
                self._name(collection_id),
                query=query,
                using=using,
                limit=limit,
                query_filter=chosen,
                with_payload=False,
            )
        return [StoreHit(str(point.id), point.score) for point in found.points]

    async def _dimension(self, collection_id: str) -> int:
        """Raises: RAGError without the collection."""
        if collection_id not in self._dimensions:
            if not await self.exists(collection_id):
                raise RAGError(
                    f"the collection {collection_id!r} has no search index; "
                    "`terakoya documents rebuild COLLECTION` makes one from its documents"
                )
            with _errors_are_named():
                info = await self._client.get_collection(self._name(collection_id))
            vectors = info.config.params.vectors
            if not isinstance(vectors, dict) or DENSE not in vectors:
                raise RAGError(f"the collection {self._name(collection_id)!r} on the Qdrant server is not Terakoya's")
            self._dimensions[collection_id] = vectors[DENSE].size
        return self._dimensions[collection_id]

    def _name(self, collection_id: str) -> str:
        return self._prefix + collection_id

    def _sparse(self, vector: SparseVector) -> SparseVectorModel:
        return self._models.SparseVector(indices=list(vector.indices), values=list(vector.values))

    def _of_document(self, document_id: str) -> Filter:
        chosen: Filter = self._models.Filter(must=[self._any(DOCUMENT, [document_id])])
        return chosen

    def _filter(self, filters: Filters) -> Filter | None:
        if filters.is_empty:
            return None
        models = self._models
        conditions = [self._any(name, values) for name, values in words_of(filters).items()]
        if filters.date_from is not None or filters.date_to is not None:
            days = models.Range(gte=filters.added_from_seconds, lt=filters.added_before_seconds)
            conditions.append(models.FieldCondition(key=ADDED, range=days))
        chosen: Filter = models.Filter(must=conditions)
        return chosen

    def _any(self, name: str, values: Sequence[str]) -> FieldCondition:
        condition: FieldCondition = self._models.FieldCondition(key=name, match=self._models.MatchAny(any=list(values)))
        return condition


@contextmanager
def _errors_are_named() -> Iterator[None]:
    """Turn the client's errors into ours; the server's address stays the administrator's."""
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise Unavailable(
                f"the Qdrant server refused the key (status {error.status_code}); check TERAKOYA_QDRANT_API_KEY"
            ) from error
        if error.status_code == 404:
            raise RAGError(
                "the search index is no longer on the Qdrant server; "
                "`terakoya documents rebuild COLLECTION` makes it anew from the database"
            ) from error
        raise Unavailable(
            f"the Qdrant server answered with status {error.status_code} ({error.reason_phrase!r}); see its log"
        ) from error
    except (ApiException, QdrantException) as error:
        raise Unavailable(
            f"the Qdrant server cannot be reached ({type(error).__name__}: {error}); "
            "check that it runs and TERAKOYA_QDRANT_URL"
        ) from error
