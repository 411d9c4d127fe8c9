"""From a question to the passages that fit it best: analysed and embedded at once, searched both ways, fused, fetched.
Knows nothing of answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from terakoya.domain.document_ports import EVERYTHING, DocumentRepository, Embedder, VectorStore
from terakoya.domain.documents import CollectionInfo, Hit, Language, Passage, StoreHit, Terms, Vector
from terakoya.domain.retrieval import MAX_CANDIDATES, Filters, RetrievalSettings
from terakoya.exceptions import InvalidConfig, InvalidQuery, ModelNotFound, Unavailable
from terakoya.rag.retrieval.analysis import language_of, terms_of
from terakoya.rag.retrieval.fusion import DEFAULT, Fused, fuse
from terakoya.rag.retrieval.sparse import query_vector

MAX_QUERY = 8_000
"""Characters: some ten times what the embedder reads."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    query: str
    """Without the white space around it."""
    language: Language
    terms: Terms
    query_vector: Vector
    """Zeros if the collection is empty: then nothing was embedded."""
    hits: tuple[Hit, ...]
    """Best first."""
    seconds: dict[str, float]
    """By stage: analyse, embed, dense, sparse, fuse, fetch. The first four overlap."""


class Retriever:
    def __init__(
        self,
        *,
        store: VectorStore,
        documents: DocumentRepository,
        embedder: Embedder,
        is_incomplete: Callable[[str], bool] = lambda collection_id: False,
    ) -> None:
        """``is_incomplete``: whether a collection's index does not hold everything, so that nothing can be said."""
        self._is_incomplete = is_incomplete
        self._store = store
        self._documents = documents
        self._embedder = embedder

    async def search(
        self,
        collection: CollectionInfo,
        query: str,
        *,
        limit: int = 10,
        settings: RetrievalSettings = DEFAULT,
        filters: Filters = EVERYTHING,
    ) -> Retrieved:
        """Return the best ``limit`` passages of ready documents; each of the two searches finds as many at least.

        Raises: InvalidQuery; InvalidConfig on a limit out of its range; RAGError without an index; Unavailable.
        """
        if not 1 <= limit <= MAX_CANDIDATES:
            raise InvalidConfig(f"a search returns 1 to {MAX_CANDIDATES:,} passages; got {limit!r}")
        candidates = max(limit, settings.candidates)
        text = _checked(query)
        run = _Search(self._store, self._embedder, collection, text, candidates, filters)
        if collection.passages == 0:
            nothing = np.zeros(collection.dimension, dtype=np.float32)
            return Retrieved(text, language_of(text), await run.analyse(), nothing, (), run.seconds)
        self._refuse_incomplete(collection)
        if not filters.is_empty and not collection.can_filter:
            raise Unavailable(
                f"the search index of {collection.name!r} is of an earlier version, which knows no filters, and is "
                f"being made anew; try again in a moment, or `terakoya documents rebuild {collection.name}`"
            )
        (vector, dense), (terms, sparse) = await run.both()
        self._refuse_incomplete(collection)  # it may have been taken away meanwhile
        with run.stage("fuse"):
            fused = fuse(dense, sparse, settings)
        with run.stage("fetch"):
            hits = await asyncio.to_thread(self._fetch, fused, limit)
        return Retrieved(text, language_of(text), terms, vector, hits, run.seconds)

    async def rankings(
        self, collection: CollectionInfo, query: str, *, candidates: int, filters: Filters = EVERYTHING
    ) -> tuple[Sequence[StoreHit], Sequence[StoreHit]]:
        """Return what the search by meaning and the search by words find, each best first, not joined.

        Raises: as ``search``.
        """
        text = _checked(query)
        self._refuse_incomplete(collection)
        run = _Search(self._store, self._embedder, collection, text, candidates, filters)
        (_, dense), (_, sparse) = await run.both()
        self._refuse_incomplete(collection)
        return dense, sparse

    def _refuse_incomplete(self, collection: CollectionInfo) -> None:
        """Raises: Unavailable."""
        if self._is_incomplete(collection.id):
            raise Unavailable(
                f"the search index of {collection.name!r} is being made anew; try again in a moment. If that was "
                f"cancelled or failed, `terakoya documents rebuild {collection.name}` does it again"
            )

    def _fetch(self, fused: Sequence[Fused], limit: int) -> tuple[Hit, ...]:
        """The passages, best first; those that were deleted after they were found make room for the next."""
        hits: list[Hit] = []
        for start in range(0, len(fused), limit):
            hits += self._fetch_some(fused[start : start + limit])
            if len(hits) >= limit:
                break
        return tuple(hits[:limit])

    def _fetch_some(self, fused: Sequence[Fused]) -> list[Hit]:
        passages = self._documents.passages([found.id for found in fused])
        titles = self._documents.titles(sorted({passage.document_id for passage in passages.values()}))
        there = [(found, passages[found.id]) for found in fused if found.id in passages]
        return [
            _hit(found, passage, titles[passage.document_id])
            for found, passage in there
            if passage.document_id in titles
        ]


@dataclass(slots=True)
class _Search:
    """The two ways of one question, each with its seconds."""

    store: VectorStore
    embedder: Embedder
    collection: CollectionInfo
    text: str
    candidates: int
    filters: Filters
    seconds: dict[str, float] = field(default_factory=dict)

    async def both(self) -> tuple[tuple[Vector, Sequence[StoreHit]], tuple[Terms, Sequence[StoreHit]]]:
        """Search both ways at once; when one fails, the other is not left waiting in the model server."""
        dense, sparse = asyncio.ensure_future(self.dense()), asyncio.ensure_future(self.sparse())
        try:
            return await asyncio.gather(dense, sparse)
        except BaseException:
            dense.cancel()
            sparse.cancel()
            await asyncio.gather(dense, sparse, return_exceptions=True)
            raise

    async def dense(self) -> tuple[Vector, Sequence[StoreHit]]:
        with self.stage("embed"):
            vector: Vector = (await self._embedded())[0]
        with self.stage("dense"):
            hits = await self.store.search_dense(
                self.collection.id, vector, limit=self.candidates, filters=self.filters
            )
        return vector, hits

    async def _embedded(self) -> Vector:
        """Raises: ModelNotFound, saying what it means for the collection; Unavailable."""
        try:
            return await self.embedder.embed_queries(self.collection.embedder_id, [self.text])
        except ModelNotFound as error:
            raise ModelNotFound(
                f"the collection {self.collection.name!r} was embedded by a model that is not here any more "
                f"({self.collection.embedder_id!r}), so no question can be compared with it. Its documents are safe; "
                "make a new collection with the present embedder and add them there"
            ) from error

    async def sparse(self) -> tuple[Terms, Sequence[StoreHit]]:
        terms = await self.analyse()
        if not terms:  # nothing but words like "the": only the dense search can help
            return terms, ()
        with self.stage("sparse"):
            hits = await self.store.search_sparse(
                self.collection.id, query_vector(terms), limit=self.candidates, filters=self.filters
            )
        return terms, hits

    async def analyse(self) -> Terms:
        with self.stage("analyse"):
            return await asyncio.to_thread(terms_of, self.text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _checked(query: str) -> str:
    """Raises: InvalidQuery."""
    text = query.strip()
    if not text:
        raise InvalidQuery("the question is empty; write what you are looking for")
    if len(text) > MAX_QUERY:
        raise InvalidQuery(f"the question has {len(text):,} characters; at most {MAX_QUERY:,} can be looked for")
    if not any(map(str.isalnum, text)):
        raise InvalidQuery(f"the question {text[:40]!r} has no letter or digit; write a few words to look for")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidQuery(f"the question {text[:40]!r} has half a character (a lone surrogate); send it as UTF-8")
    return text


def _hit(found: Fused, passage: Passage, title: str) -> Hit:
    return Hit(
        passage=passage,
        title=title,
        score=found.score,
        dense_score=found.dense_score,
        dense_rank=found.dense_rank,
        sparse_score=found.sparse_score,
        sparse_rank=found.sparse_rank,
    )
