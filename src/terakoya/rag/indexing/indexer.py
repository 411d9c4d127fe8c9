"""What brings a stored file into answers, step by step, each of which may be repeated: parsed, embedded, indexed. Also
the work of rebuilding an index. Knows nothing of tasks but the row it is given.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from terakoya.domain.document_ports import DocumentRepository, Embedder
from terakoya.domain.documents import CollectionInfo, DocumentInfo, Passage, Vector
from terakoya.domain.events import WAITING, EventType, Observer, Phase
from terakoya.domain.ports import ModelRepository
from terakoya.domain.tasks import Task
from terakoya.exceptions import AppException, RAGError, Unavailable
from terakoya.rag.indexing.index_keeper import IndexKeeper
from terakoya.rag.indexing.parse_child import ParsedDocument
from terakoya.rag.indexing.passage_text import indexed_text

EMBED_BATCH = 64
"""Passages embedded and saved at once: what a kill loses at most."""
PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 30.0)
"""Before the model server or the index is asked again after it was not there."""
_IDS = uuid.UUID("6c0b4d5e-6f7a-5c38-9a53-6c9f0f1f4c11")
_TOKENIZER_FILE = "tokenizer.json"
Result = TypeVar("Result")
Parse = Callable[..., Awaitable[ParsedDocument]]


@dataclass(frozen=True, slots=True)
class ParseLimits:
    timeout_seconds: float
    memory_bytes: int


class Indexer:
    """``ingest`` and ``rebuild`` are InlineWorks; their requests name ``document_id`` and ``collection_id``."""

    def __init__(
        self,
        *,
        documents: DocumentRepository,
        embedder: Embedder,
        models: ModelRepository,
        keeper: IndexKeeper,
        parse: Parse,
        limits: ParseLimits,
    ) -> None:
        """``parse``: of ``ParseChildren``."""
        self._documents = documents
        self._embedder = embedder
        self._models = models
        self._keeper = keeper
        self._parse_file = parse
        self._limits = limits
        self._tokenizers: dict[str, Path] = {}

    async def ingest(self, task: Task, observer: Observer) -> dict[str, Any]:
        """Go on with a document wherever an earlier attempt stopped. Its row says why if it cannot be read.

        Raises: UnreadableDocument, DocumentNotFound, and whatever else stands in the way.
        """
        document_id = str(task.request["document_id"])
        try:
            return await self._ingest(document_id, observer)
        except AppException as error:
            await self._mark_failed(document_id, str(error), error.code)
            raise
        except Exception as error:
            await self._mark_failed(document_id, f"{type(error).__name__}: {error}", "internal_error")
            raise

    async def rebuild(self, task: Task, observer: Observer) -> dict[str, Any]:
        """Raises: CollectionNotFound, Unavailable."""
        collection_id = str(task.request["collection_id"])
        written = await _patiently(lambda: self._keeper.rebuild(collection_id, _progress(observer)), observer)
        return {"points": written}

    async def _ingest(self, document_id: str, observer: Observer) -> dict[str, Any]:
        await asyncio.to_thread(self._documents.set_indexing, document_id)
        document = await asyncio.to_thread(self._documents.find_document, document_id)
        collection = await asyncio.to_thread(self._documents.find_collection, document.collection_id)
        if not document.passages:
            observer.notify(EventType.PHASE, phase=Phase.PARSING)
            await _patiently(lambda: self._keeper.prepare(collection.id), observer)
            await self._parse(document, collection)
            document = await asyncio.to_thread(self._documents.find_document, document_id)
        await self._embed(document, collection, observer)
        written = await _patiently(lambda: self._keeper.add(document, _progress(observer)), observer)
        return {"passages": written, "characters": document.characters, "pages": document.pages}

    async def _parse(self, document: DocumentInfo, collection: CollectionInfo) -> None:
        tokenizer = await asyncio.to_thread(self._tokenizer_of, collection.embedder_id)
        parsed = await self._parse_file(
            await asyncio.to_thread(self._documents.file_of, document.id),
            parser=document.parser,
            filename=document.filename,
            tokenizer=tokenizer,
            title=None if document.title == PurePath(document.filename).stem else document.title,
            timeout_seconds=self._limits.timeout_seconds,
            memory_bytes=self._limits.memory_bytes,
        )
        await asyncio.to_thread(self._save, document, parsed)

    def _save(self, document: DocumentInfo, parsed: ParsedDocument) -> None:
        passages = [
            (
                Passage(
                    id=passage_id(document.id, document.version, ordinal),
                    document_id=document.id,
                    version=document.version,
                    ordinal=ordinal,
                    start=found.start,
                    end=found.end,
                    text=parsed.text[found.start : found.end],
                    page=found.page,
                    heading=found.heading,
                ),
                found.terms,
            )
            for ordinal, found in enumerate(parsed.passages)
        ]
        self._documents.save_parsed(
            document.id,
            text=parsed.text,
            title=parsed.title,
            language=parsed.language,
            pages=parsed.pages,
            notices=parsed.notices,
            passages=passages,
        )

    async def _embed(self, document: DocumentInfo, collection: CollectionInfo, observer: Observer) -> None:
        missing = await asyncio.to_thread(self._documents.passages_to_embed, document.id, limit=document.passages)
        done = document.passages - len(missing)
        observer.notify(EventType.PHASE, phase=Phase.EMBEDDING, done=done, total=document.passages)
        for start in range(0, len(missing), EMBED_BATCH):
            batch = missing[start : start + EMBED_BATCH]
            texts = [indexed_text(document.title, passage.heading, passage.text) for passage in batch]
            vectors = await _patiently(self._embedding(collection, texts), observer)
            embeddings = {passage.id: vector for passage, vector in zip(batch, vectors, strict=True)}
            await asyncio.to_thread(self._documents.save_embeddings, embeddings)
            done += len(batch)
            observer.notify(EventType.PHASE, phase=Phase.EMBEDDING, done=done, total=document.passages)

    def _embedding(self, collection: CollectionInfo, texts: Sequence[str]) -> Callable[[], Awaitable[Vector]]:
        async def embed() -> Vector:
            vectors = await self._embedder.embed_passages(collection.embedder_id, texts)
            if vectors.shape != (len(texts), collection.dimension) or not np.isfinite(vectors).all():
                raise RAGError(
                    f"the embedder of the collection {collection.name!r} must give {len(texts)} finite vectors of "
                    f"{collection.dimension} dimensions; it gave {vectors.shape!r}"
                )
            return vectors

        return embed

    def _tokenizer_of(self, embedder_id: str) -> Path:
        if embedder_id not in self._tokenizers:
            self._tokenizers[embedder_id] = self._models.load_model(embedder_id).path / _TOKENIZER_FILE
        return self._tokenizers[embedder_id]

    async def _mark_failed(self, document_id: str, error: str, code: str) -> None:
        await asyncio.to_thread(self._documents.set_failed, document_id, error=error, error_code=code)


def passage_id(document_id: str, version: int, ordinal: int) -> str:
    """The same for the same passage, in every index and after every repetition."""
    return str(uuid.uuid5(_IDS, f"{document_id}/{version}/{ordinal}"))


def _progress(observer: Observer) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        observer.notify(EventType.PHASE, phase=Phase.INDEXING, done=done, total=total)

    return tell


async def _patiently(call: Callable[[], Awaitable[Result]], observer: Observer) -> Result:
    """Try again while what is needed is not there. Raises: Unavailable after PAUSES_SECONDS."""
    for pause_seconds in PAUSES_SECONDS:
        try:
            return await call()
        except Unavailable as error:
            message = f"{error}; trying again in {pause_seconds:g} s"
            observer.notify(EventType.WARNING, code=WAITING, message=message)
            await asyncio.sleep(pause_seconds)
            observer.notify(EventType.LOG, message="trying again")  # from here on it is at work, not waiting
    return await call()
