"""Keeps each collection's vector index what the database says it is: written, weighted anew, rebuilt, forgotten, one
change of a collection at a time. Knows nothing of files, parsers or embedders.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import structlog

from terakoya.domain.document_ports import DocumentRepository, VectorStore
from terakoya.domain.documents import CollectionInfo, DocumentInfo, DocumentStatus, IndexedPassage, IndexPoint
from terakoya.domain.retrieval import DocumentFacts
from terakoya.exceptions import RAGError, Unavailable

log = structlog.get_logger(__name__)
ALL = 10**9
MAX_DRIFT = 0.10
"""How far the average length may move before every lexical weight of a collection is computed anew."""
OPTIMIZE_AFTER_POINTS = 10_000
"""Below it a search that compares everything takes a few milliseconds."""
OPTIMIZE_AFTER_SHARE = 0.25
"""Of an index must be new before it is optimised again: the time that takes stays in proportion to what was added."""
RETRY_SECONDS = 5.0
_BATCH = 256
Progress = Callable[[int, int], None]
"""Told how many passages of how many are written."""


class IndexKeeper:
    """To be used on one event loop. Documents are ready only once all their points are in the index."""

    def __init__(self, documents: DocumentRepository, store: VectorStore) -> None:
        self._documents = documents
        self._store = store
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unoptimized: defaultdict[str, int] = defaultdict(int)
        self._background: set[asyncio.Task[None]] = set()
        self._incomplete: set[str] = set()

    def is_incomplete(self, collection_id: str) -> bool:
        """Whether its index is just being made anew, or was not finished: what is found in it says nothing."""
        return collection_id in self._incomplete

    async def prepare(self, collection_id: str) -> None:
        """Have an index, if an empty one, before there are passages to look for. Raises: CollectionNotFound."""
        async with self._locks[collection_id]:
            collection = await asyncio.to_thread(self._documents.find_collection, collection_id)
            await self._store.create(collection.id, dimension=collection.dimension)

    async def add(self, document: DocumentInfo, progress: Progress) -> int:
        """Write an embedded document's points, then set it ready; return how many.

        Raises: DocumentNotFound, CollectionNotFound if it was deleted meanwhile; Unavailable, StorageFull.
        """
        async with self._locks[document.collection_id]:
            collection = await asyncio.to_thread(self._documents.find_collection, document.collection_id)
            await self._store.create(collection.id, dimension=collection.dimension)
            average = await self._settled_average(collection)
            passages = self._documents.indexed_passages(collection.id, document.id)
            document = await asyncio.to_thread(self._documents.find_document, document.id)  # it may have got tags
            facts = {document.id: document.facts}
            written = await self._write(collection.id, passages, average, facts, document.passages, progress)
            replaced = await asyncio.to_thread(self._documents.set_ready, document.id)
        if replaced:
            self.in_background(self.forget_deleted(), name=f"forget what {document.id} replaces")
        await self._optimize_if_grown(collection.id, written)
        return written

    async def set_tags(self, document: DocumentInfo, tags: tuple[str, ...]) -> None:
        """Change a document's tags, in the index first: what is shown can always be searched by.

        Raises: DocumentNotFound, Unavailable.
        """
        async with self._locks[document.collection_id]:
            document = await asyncio.to_thread(self._documents.find_document, document.id)  # it may be ready by now
            if document.status is DocumentStatus.READY:
                facts = replace(document.facts, tags=tags)
                await self._store.set_facts(document.collection_id, document.id, facts)
            await asyncio.to_thread(self._documents.set_tags, document.id, tags)

    async def rebuild(self, collection_id: str, progress: Progress) -> int:
        """Make the index anew from the database; return the number of points. Raises: CollectionNotFound."""
        async with self._locks[collection_id]:
            collection = await asyncio.to_thread(self._documents.find_collection, collection_id)
            average = await asyncio.to_thread(self._documents.actual_average_length, collection_id)
            self._incomplete.add(collection_id)
            await self._store.drop(collection_id)
            await self._store.create(collection_id, dimension=collection.dimension)
            written = await self._write_ready(collection_id, average, progress)
            await asyncio.to_thread(self._documents.set_average_length, collection_id, average)
            await asyncio.to_thread(self._documents.set_can_filter, collection_id)
            self._incomplete.discard(collection_id)
        self._unoptimized[collection_id] = 0
        await self._optimize_if_grown(collection_id, written)
        return written

    async def points_of(self, collection_id: str, document_ids: Sequence[str]) -> int | None:
        """Return how many points these documents have in the index; None if it cannot be asked."""
        try:
            if not await self._store.exists(collection_id):
                return 0
            return sum([await self._store.count(collection_id, document_id=one) for one in document_ids])
        except (RAGError, Unavailable) as error:
            log.warning("index_not_counted", collection_id=collection_id, error=str(error))
            return None

    async def forget_deleted(self) -> None:
        """Carry out every deletion that the index may not know of yet, waiting for it while it is not there."""
        while True:
            try:
                return await self._carry_out_deletions()
            except Unavailable as error:
                log.warning("index_deletion_postponed", error=str(error), retry_seconds=RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def _carry_out_deletions(self) -> None:
        """An index that cannot be opened keeps its own deletions waiting, not those of others."""
        for collection_id, document_id in await asyncio.to_thread(self._documents.deletions_due):
            try:
                await self._carry_out(collection_id, document_id)
            except RAGError as error:
                log.warning("index_deletion_postponed", collection_id=collection_id, error=str(error))

    async def _carry_out(self, collection_id: str, document_id: str) -> None:
        async with self._locks[collection_id]:
            if document_id == collection_id:
                await self._store.drop(collection_id)
            elif await self._store.exists(collection_id):
                await self._store.delete_document(collection_id, document_id)
            await asyncio.to_thread(self._documents.deletion_done, document_id)

    async def is_whole(self, collection_id: str) -> bool:
        """Whether the index holds as many points as the ready documents have passages."""
        async with self._locks[collection_id]:
            documents = await asyncio.to_thread(self._documents.list_documents, collection_id, limit=ALL)
            expected = sum(document.passages for document in documents if document.status is DocumentStatus.READY)
            unready = [document for document in documents if document.status is not DocumentStatus.READY]
            try:
                return await self._points_of_ready(collection_id, unready) == expected
            except RAGError as error:
                log.warning("index_unusable", collection_id=collection_id, error=str(error))
                return False

    async def _points_of_ready(self, collection_id: str, unready: Sequence[DocumentInfo]) -> int:
        """Return how many points there are, but for those of documents that were being written."""
        if not await self._store.exists(collection_id):
            return 0
        found = await self._store.count(collection_id)
        for document in unready:
            if document.passages:
                found -= await self._store.count(collection_id, document_id=document.id)
        return found

    def in_background(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Do what may fail, is logged then, and made good at the next start. Cancelled by ``close``."""
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("index_work_failed", work=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Stop what goes on behind requests, and close the store."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._store.close()

    async def _settled_average(self, collection: CollectionInfo) -> float:
        """Return the average length to weigh by: the pinned one, or the actual one if that has moved too far from it.

        All other points are weighted anew before the new one is pinned: a crash between leaves it to be done again.
        """
        actual = await asyncio.to_thread(self._documents.actual_average_length, collection.id)
        pinned = collection.average_length
        if pinned and abs(actual - pinned) <= MAX_DRIFT * pinned:
            return pinned
        if pinned:
            written = await self._write_ready(collection.id, actual, lambda done, total: None)
            log.info("collection_weighted_anew", collection_id=collection.id, points=written, average_length=actual)
        await asyncio.to_thread(self._documents.set_average_length, collection.id, actual)
        return actual

    async def _write_ready(self, collection_id: str, average: float, progress: Progress) -> int:
        documents = await asyncio.to_thread(self._documents.list_documents, collection_id, limit=ALL)
        ready = [document for document in documents if document.status is DocumentStatus.READY]
        facts = {document.id: document.facts for document in ready}
        passages = (p for p in self._documents.indexed_passages(collection_id) if p.document_id in facts)
        total = sum(document.passages for document in ready)
        return await self._write(collection_id, passages, average, facts, total, progress)

    async def _write(
        self,
        collection_id: str,
        passages: Iterator[IndexedPassage],
        average: float,
        facts: Mapping[str, DocumentFacts],
        total: int,
        progress: Progress,
    ) -> int:
        written = 0
        progress(0, total)
        async for points in _batches(passages, average, facts):
            await self._store.upsert(collection_id, points)
            written += len(points)
            progress(written, total)
        return written

    async def _optimize_if_grown(self, collection_id: str, written: int) -> None:
        self._unoptimized[collection_id] += written
        grown = self._unoptimized[collection_id]
        if grown < OPTIMIZE_AFTER_POINTS or not await self._store.exists(collection_id):
            return
        if grown >= OPTIMIZE_AFTER_SHARE * await self._store.count(collection_id):
            self._unoptimized[collection_id] = 0
            self.in_background(self._store.optimize(collection_id), name=f"optimize {collection_id}")


async def _batches(
    passages: Iterator[IndexedPassage], average: float, facts: Mapping[str, DocumentFacts]
) -> AsyncIterator[list[IndexPoint]]:
    """Read and weigh in threads, a batch at a time."""
    while points := await asyncio.to_thread(_next_points, passages, average, facts):
        yield points


def _next_points(
    passages: Iterator[IndexedPassage], average: float, facts: Mapping[str, DocumentFacts]
) -> list[IndexPoint]:
    from terakoya.rag.retrieval.sparse import passage_vector

    return [
        IndexPoint(p.id, p.document_id, p.embedding, passage_vector(p.terms, average), facts[p.document_id])
        for p in islice(passages, _BATCH)
    ]
