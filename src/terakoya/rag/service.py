"""What can be done with collections and documents: add, list, read, delete, rebuild, and putting right at start what a
crash left. Knows storage and background work as ports, nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import DEFAULT_COLLECTION, CollectionInfo, Deleted, DocumentInfo, DocumentStatus
from terakoya.domain.models import ModelInfo, ModelKind
from terakoya.domain.names import name_key
from terakoya.domain.ports import ModelRepository, TaskQueue, TaskRepository
from terakoya.domain.retrieval import MAX_TAG_CHARACTERS, MAX_TAGS, RetrievalSettings
from terakoya.domain.tasks import FINAL_STATES, Task, TaskKind, TaskState
from terakoya.exceptions import (
    AppException,
    CollectionNotFound,
    Conflict,
    DocumentNotFound,
    InvalidConfig,
    ModelNotFound,
    StorageFull,
    TaskNotFound,
    Unavailable,
)
from terakoya.rag.indexing.index_keeper import ALL, RETRY_SECONDS, IndexKeeper
from terakoya.rag.indexing.parsers import HEAD_BYTES, parser_for
from terakoya.rag.sources import check_source

log = structlog.get_logger(__name__)
MAX_TITLE_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 20_000
UNNAMED = "document"
FORGET_SECONDS = 5.0
"""So long a deletion waits for the index, which may be at work on a large document. What is deleted is out of every
answer before that."""
_UNFINISHED = frozenset(TaskState) - FINAL_STATES


@dataclass(frozen=True, slots=True)
class Added:
    document: DocumentInfo
    is_duplicate: bool
    """Whether the collection held the same content already; then this is that document."""


@dataclass(frozen=True, slots=True)
class TextSlice:
    text: str
    start: int
    end: int
    characters: int
    """Of the whole text."""


class DocumentService:
    def __init__(
        self,
        *,
        documents: DocumentRepository,
        queue: TaskQueue,
        tasks: TaskRepository,
        models: ModelRepository,
        keeper: IndexKeeper,
        embedder: str,
    ) -> None:
        """``embedder``: the registered model that new collections are pinned to."""
        self._documents = documents
        self._queue = queue
        self._tasks = tasks
        self._models = models
        self._keeper = keeper
        self._embedder = embedder
        self._adding = [threading.Lock() for _ in range(64)]
        """By hash of the file: the same file sent twice at the same moment is one document with one task."""
        self._replacing = [threading.Lock() for _ in range(64)]
        """By what is replaced: two versions sent at the same moment follow each other. Taken before ``_adding``."""

    # -- collections --

    def add_collection(self, name: str) -> CollectionInfo:
        """Raises: Conflict if the name is taken; ModelNotFound, naming the command that fetches the embedder."""
        embedder = self._pinned_embedder()
        return self._documents.add_collection(
            name,
            embedder_id=embedder.id,
            embedder_sha256=embedder.content_sha256,
            dimension=int(embedder.card["dimension"]),
        )

    def list_collections(self) -> Sequence[CollectionInfo]:
        """By name."""
        return self._documents.list_collections()

    def get_collection(self, id_or_name: str) -> CollectionInfo:
        """Raises: CollectionNotFound."""
        return self._documents.find_collection(id_or_name)

    def set_retrieval(self, id_or_name: str, settings: RetrievalSettings) -> CollectionInfo:
        """Have it searched so from now on. Raises: CollectionNotFound."""
        collection = self._documents.find_collection(id_or_name)
        self._documents.set_retrieval(collection.id, settings)
        return self._documents.find_collection(collection.id)

    def forget_calibration(self, id_or_name: str) -> CollectionInfo:
        """Have it decide by the coefficients that come with Terakoya. Raises: CollectionNotFound."""
        collection = self._documents.find_collection(id_or_name)
        self._documents.set_abstention(collection.id, None)
        return self._documents.find_collection(collection.id)

    async def delete_collection(self, id_or_name: str) -> None:
        """Remove it with its documents and its index. Raises: CollectionNotFound."""
        await asyncio.to_thread(self._delete_collection_rows, id_or_name)
        await self._forget()

    def rebuild(self, id_or_name: str) -> Task:
        """Have the index made anew from the database; one task at a time. Raises: CollectionNotFound."""
        collection = self._documents.find_collection(id_or_name)
        for task in self._tasks.list_tasks(kind=TaskKind.REBUILD, states=_UNFINISHED, limit=ALL):
            if task.request.get("collection_id") == collection.id and task.state is TaskState.QUEUED:
                return task
        request = {"collection_id": collection.id}
        return self._queue.submit(TaskKind.REBUILD, name=collection.name, request=request, resolved={})

    # -- documents --

    def add(
        self,
        upload: Path,
        *,
        collection: str = DEFAULT_COLLECTION,
        filename: str | None,
        title: str | None,
        source: str | None = None,
        replaces: str | None = None,
    ) -> Added:
        """Take over a file and queue its indexing; both survive a crash when this returns. A file that the collection
        holds already is that document; one that failed is queued again. What came from the same ``source`` with other
        content, or is named by ``replaces``, is asked until the new version is ready, and only listed from then on.

        Raises: CollectionNotFound; DocumentNotFound; UnreadableDocument for a type that is not read; InvalidConfig for
        a title that is too long or a source that is no path; Conflict if what it replaces is not the newest version, or
        a version before it has the same content and is still asked; ModelNotFound if there is no embedder for a first
        collection; StorageFull.
        """
        label = filename or UNNAMED
        title = _checked_title(title or "")
        source = None if source is None else check_source(source)
        with upload.open("rb") as file:
            parser = parser_for(label, file.read(HEAD_BYTES))
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found = self._collection_for(collection) if replaces is None else self._collection_of(replaces)
        line = replaces or source or sha256
        with (
            self._replacing[hash((found.id, line)) % len(self._replacing)],
            self._adding[int(sha256[:2], 16) % len(self._adding)],  # a second one waits until the first has its task
        ):
            before = self._before(found.id, source, replaces)
            if (same := self._same_content(found.id, sha256, before)) is not None:
                return Added(self._again(same), is_duplicate=True)
            if before is not None:
                source = source or before.source
            document = self._documents.add_document(
                found.id,
                upload,
                title=title,
                filename=label,
                parser=parser,
                content_sha256=sha256,
                source=source,
                replaces=before,
            )
            return Added(self._with_task(document), is_duplicate=False)

    def unchanged(self, collection: str, files: Sequence[tuple[str, str]]) -> Sequence[str | None]:
        """Return for each (source, SHA-256) the id of the document that the collection holds of it, None if that file
        has to be sent. Raises: CollectionNotFound, but for the default one before its first use.
        """
        try:
            found = self._documents.find_collection(collection)
        except CollectionNotFound:
            if name_key(collection) == DEFAULT_COLLECTION:
                return [None] * len(files)
            raise
        return [self._held(found.id, source, sha256) for source, sha256 in files]

    def _held(self, collection_id: str, source: str, sha256: str) -> str | None:
        """Failed documents are sent again, which tries them again; so is what another version is about to replace."""
        before = self._documents.find_source(collection_id, check_source(source))
        same = self._documents.find_duplicate(collection_id, sha256)
        if same is None or same.status is DocumentStatus.FAILED:
            return None
        is_outdated = before is not None and before.id != same.id and same.source == before.source
        return None if is_outdated else same.id

    def _before(self, collection_id: str, source: str | None, replaces: str | None) -> DocumentInfo | None:
        """Return the version that a new one follows."""
        if replaces is None:
            return None if source is None else self._documents.find_source(collection_id, source)
        newest = self._documents.versions(replaces)[0]
        if newest.id != replaces:
            raise Conflict(f"{replaces!r} has a newer version: {newest.id!r} (version {newest.version}); replace that")
        return newest

    def _same_content(self, collection_id: str, sha256: str, before: DocumentInfo | None) -> DocumentInfo | None:
        same = self._documents.find_duplicate(collection_id, sha256)
        if same is not None and before is not None and same.id in _ids(self._documents.versions(before.id)[1:]):
            raise Conflict(
                f"version {same.version} has the same content and is asked until version {before.version} is ready; "
                "send it again then"
            )
        return same

    def _collection_of(self, document_id: str) -> CollectionInfo:
        return self._documents.find_collection(self._documents.find_document(document_id).collection_id)

    def _with_task(self, document: DocumentInfo) -> DocumentInfo:
        try:
            return self._queue_ingest(document)
        except AppException:  # a full disk, a locked database: what is not acknowledged is not kept either
            self._documents.delete_document(document.id)
            raise

    def list(
        self, collection: str | None = None, *, limit: int = 1000, replaced: bool = False
    ) -> Sequence[DocumentInfo]:
        """Newest first; ``replaced``: those as well that have a newer version. Raises: CollectionNotFound, but for the
        default one before its first use.
        """
        if collection is None:
            return self._documents.list_documents(limit=limit, replaced=replaced)
        try:
            found = self._documents.find_collection(collection)
        except CollectionNotFound:
            if name_key(collection) == DEFAULT_COLLECTION:
                return []
            raise
        return self._documents.list_documents(found.id, limit=limit, replaced=replaced)

    def versions(self, document_id: str) -> Sequence[DocumentInfo]:
        """Newest first. Raises: DocumentNotFound."""
        return self._documents.versions(document_id)

    async def set_tags(self, document_id: str, tags: Sequence[str]) -> DocumentInfo:
        """Put these tags in the place of those there are. Raises: DocumentNotFound; InvalidConfig; Unavailable."""
        document = await asyncio.to_thread(self._documents.find_document, document_id)
        await self._keeper.set_tags(document, _checked_tags(tags))
        return await asyncio.to_thread(self._documents.find_document, document_id)

    def get(self, document_id: str) -> DocumentInfo:
        """Raises: DocumentNotFound."""
        return self._documents.find_document(document_id)

    async def delete(self, document_id: str) -> Deleted:
        """Remove a document with the versions before it, rows and files, then their points: from the rows' end on no
        answer has any of it. A version that is not asked, or not yet, goes alone. Raises: DocumentNotFound.
        """
        going = await asyncio.to_thread(self._going_with, document_id)
        vectors = await self._keeper.points_of(going[0].collection_id, _ids(going))
        await asyncio.to_thread(self._delete_rows, going)
        await self._forget()
        due = {document for _, document in await asyncio.to_thread(self._documents.deletions_due)}
        return Deleted(
            document_id=going[0].id,
            title=going[0].title,
            versions=tuple(document.version for document in going),
            files=len(going),
            file_bytes=sum(document.size_bytes for document in going),
            characters=sum(document.characters for document in going),
            passages=sum(document.passages for document in going),
            vectors=vectors,
            index_cleared=due.isdisjoint(_ids(going)),
        )

    def text(self, document_id: str, *, start: int = 0, end: int | None = None) -> TextSlice:
        """Return at most MAX_TEXT_CHARACTERS of the stored text. Raises: DocumentNotFound, InvalidConfig."""
        end = start + MAX_TEXT_CHARACTERS if end is None else min(end, start + MAX_TEXT_CHARACTERS)
        if not 0 <= start <= end:
            raise InvalidConfig(f"a slice of text has 0 <= start <= end; got start={start!r}, end={end!r}")
        text = self._documents.text_of(document_id)
        start, end = min(start, len(text)), min(end, len(text))
        return TextSlice(text[start:end], start, end, len(text))

    def file(self, document_id: str) -> tuple[DocumentInfo, Path]:
        """Return the document and its original file. Raises: DocumentNotFound."""
        return self._documents.find_document(document_id), self._documents.file_of(document_id)

    # -- at start --

    def queue_forgotten(self) -> None:
        """Queue documents that no task is going to index: the server ended between the one row and the other. Before
        the first request only: a document that is just being added looks the same. A full disk leaves it to the next
        start.
        """
        try:
            for document in self._documents.unfinished_documents():
                if document.task_id is None or self._is_final(document.task_id):
                    log.info("document_queued_again", document_id=document.id)
                    self._queue_ingest(document)
        except (StorageFull, Unavailable) as error:
            log.warning("documents_not_queued", error=str(error))

    async def reconcile(self) -> None:
        """Carry out deletions that an index may not know of, and rebuild those that do not hold what the database
        does; wait for a vector store that is not there yet.
        """
        while True:
            try:
                return await self._reconcile()
            except Unavailable as error:
                log.warning("reconciliation_postponed", error=str(error), retry_seconds=RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def _reconcile(self) -> None:
        await self._keeper.forget_deleted()
        for collection in await asyncio.to_thread(self._documents.list_collections):
            if not collection.can_filter or not await self._keeper.is_whole(collection.id):
                log.warning("index_incomplete", collection_id=collection.id)
                await asyncio.to_thread(self.rebuild, collection.id)

    # -- parts --

    def _is_final(self, task_id: str) -> bool:
        try:
            return self._tasks.find(task_id).state.is_final
        except TaskNotFound:
            return True

    def _queue_ingest(self, document: DocumentInfo) -> DocumentInfo:
        request: dict[str, Any] = {"document_id": document.id, "collection_id": document.collection_id}
        task = self._queue.submit(TaskKind.INGEST, name=document.filename, request=request, resolved={})
        self._documents.set_task(document.id, task.id)
        return self._documents.find_document(document.id)

    def _again(self, document: DocumentInfo) -> DocumentInfo:
        """Queue a failed document's task again; any other is left as it is."""
        if document.status is not DocumentStatus.FAILED:
            return document
        if document.task_id is None:
            return self._queue_ingest(document)
        try:
            task = self._queue.resume(document.task_id)
        except (Conflict, TaskNotFound):  # it is not one that can be resumed
            return self._queue_ingest(document)
        self._documents.set_task(document.id, task.id)
        return self._documents.find_document(document.id)

    def _collection_for(self, id_or_name: str) -> CollectionInfo:
        try:
            return self._documents.find_collection(id_or_name)
        except CollectionNotFound:
            if name_key(id_or_name) != DEFAULT_COLLECTION:
                raise
        try:
            return self.add_collection(DEFAULT_COLLECTION)
        except Conflict:  # made by another request at the same moment
            return self._documents.find_collection(DEFAULT_COLLECTION)

    def _pinned_embedder(self) -> ModelInfo:
        try:
            embedder = self._models.find(self._embedder)
        except ModelNotFound as error:
            raise ModelNotFound(
                f"documents need the embedder {self._embedder!r}, which is not here; fetch it first: "
                f"`terakoya models pull {self._embedder}`"
            ) from error
        if embedder.kind is not ModelKind.EMBEDDER:
            raise InvalidConfig(
                f"{self._embedder!r} is a model of kind {embedder.kind!r} and gives no vectors; set TERAKOYA_EMBEDDER "
                "to the name of an embedder"
            )
        return embedder

    def _going_with(self, document_id: str) -> Sequence[DocumentInfo]:
        """Return what is deleted with a document, itself first."""
        versions = self._documents.versions(document_id)
        at = _ids(versions).index(document_id)
        return versions[at:] if versions[at].status is DocumentStatus.READY else versions[at : at + 1]

    def _delete_rows(self, going: Sequence[DocumentInfo]) -> None:
        for document in going:
            self._stop_task_of(document)
            with contextlib.suppress(DocumentNotFound):  # deleted by another request meanwhile
                self._documents.delete_document(document.id)

    def _delete_collection_rows(self, id_or_name: str) -> None:
        collection = self._documents.find_collection(id_or_name)
        for document in self._documents.list_documents(collection.id, limit=ALL):
            self._stop_task_of(document)
        self._documents.delete_collection(collection.id)

    def _stop_task_of(self, document: DocumentInfo) -> None:
        if document.task_id is None or document.status in (DocumentStatus.READY, DocumentStatus.REPLACED):
            return
        try:
            self._queue.cancel(document.task_id)
        except (Conflict, TaskNotFound):
            return  # it has ended already

    async def _forget(self) -> None:
        """Have the index forget what was deleted, waiting a while for it; the rows say already that it is gone."""
        forgetting = self._keeper.in_background(self._keeper.forget_deleted(), name="forget deleted documents")
        try:
            async with asyncio.timeout(FORGET_SECONDS):
                await asyncio.shield(forgetting)
        except TimeoutError:
            log.info("index_deletion_goes_on", waited_seconds=FORGET_SECONDS)
        except AppException as error:  # an index that cannot be opened: it stays noted, and is done at the next start
            log.warning("index_deletion_postponed", error=str(error))


def _ids(documents: Sequence[DocumentInfo]) -> list[str]:
    return [document.id for document in documents]


def _checked_title(title: str) -> str:
    """Raises: InvalidConfig."""
    stored = " ".join(unicodedata.normalize("NFC", title).split())
    if len(stored) > MAX_TITLE_CHARACTERS or not stored.isprintable():
        raise InvalidConfig(
            f"a title has at most {MAX_TITLE_CHARACTERS} characters and none that cannot be printed; "
            f"got {len(stored)}: {stored[:40]!r}"
        )
    return stored


def _checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return them as they are stored and compared: NFKC, each once. Raises: InvalidConfig."""
    stored = tuple(dict.fromkeys(" ".join(unicodedata.normalize("NFKC", tag).split()) for tag in tags))
    if len(stored) > MAX_TAGS:
        raise InvalidConfig(f"a document has at most {MAX_TAGS} tags; got {len(stored)}")
    for tag in stored:
        if not 1 <= len(tag) <= MAX_TAG_CHARACTERS or not tag.isprintable():
            raise InvalidConfig(
                f"a tag has 1 to {MAX_TAG_CHARACTERS} characters, all of which can be printed; got {tag[:80]!r}"
            )
    return stored
