"""The documents path over a real database, a real index and a real supervisor. The embedder stands in; files are
parsed in this process, so that a test does not wait for a child to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.unit.rag.indexing.tokenizer import small_tokenizer

from rag_stand_ins import DIMENSION, WordEmbedder
from terakoya.domain.document_ports import VectorStore
from terakoya.domain.documents import DocumentInfo
from terakoya.domain.ports import InlineWork
from terakoya.domain.tasks import NewModel, TaskKind
from terakoya.rag.indexing.index_keeper import IndexKeeper
from terakoya.rag.indexing.indexer import Indexer, ParseLimits
from terakoya.rag.indexing.parse_child import ParsedDocument
from terakoya.rag.indexing.parsed_document import DocumentReader
from terakoya.rag.indexing.token_count import load_tokenizer
from terakoya.rag.retrieval.retriever import Retriever
from terakoya.rag.service import Added, DocumentService
from terakoya.storage.database import open_database
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.event_log import FileEventLog
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository
from terakoya.storage.task_repository import SqlTaskRepository
from terakoya.storage.vector_store.edge import EdgeVectorStore
from terakoya.tasks.service import TaskService
from terakoya.tasks.supervisor import Supervisor

EMBEDDER = "words"


class DocumentHouse:
    """As ``bootstrap`` joins it. Made anew on the same folder it is the next web process."""

    def __init__(self, root: Path, store: VectorStore | None = None) -> None:
        self.data_dir = DataDir(root).create()
        self.engine = open_database(self.data_dir)
        self.rows = SqlDocumentRepository(self.engine, self.data_dir)
        self.tasks = SqlTaskRepository(self.engine, self.data_dir)
        self.models = SqlModelRepository(self.engine, self.data_dir)
        self.event_log = FileEventLog(self.data_dir)
        self.queue = TaskService(self.tasks, self.event_log, self.data_dir)
        self.store = store or EdgeVectorStore(self.data_dir.index)
        self.embedder = WordEmbedder()
        self.keeper = IndexKeeper(self.rows, self.store)
        self.retriever = Retriever(
            store=self.store,
            documents=self.rows,
            embedder=self.embedder,
            is_incomplete=self.keeper.is_incomplete,
        )
        self.service = DocumentService(
            documents=self.rows,
            queue=self.queue,
            tasks=self.tasks,
            models=self.models,
            keeper=self.keeper,
            embedder=EMBEDDER,
        )
        self.indexer = Indexer(
            documents=self.rows,
            embedder=self.embedder,
            models=self.models,
            keeper=self.keeper,
            parse=parse_here,
            limits=ParseLimits(30, 2**28),
        )

    def register_embedder(self, folder: Path) -> None:
        folder.mkdir()
        small_tokenizer().save(str(folder / "tokenizer.json"))
        model = NewModel(EMBEDDER, "embedder", folder, None, "bert", 7, "mit", "folder:made", {"dimension": DIMENSION})
        self.models.save_model(model)

    @asynccontextmanager
    async def working(self, works: Mapping[TaskKind, InlineWork] | None = None) -> AsyncIterator[None]:
        """The background work runs, as in the web process, and ``works`` besides."""
        known = {TaskKind.INGEST: self.indexer.ingest, TaskKind.REBUILD: self.indexer.rebuild, **(works or {})}
        supervisor = Supervisor(
            self.tasks,
            self.event_log,
            self.data_dir,
            planners={},
            works=known,
            slots={kind: 2 if kind is TaskKind.INGEST else 1 for kind in known},
            cancel_grace_seconds=1,
            terminate_grace_seconds=1,
        )
        self.queue.on_change(supervisor.wake)
        running = asyncio.create_task(supervisor.run())
        try:
            yield
        finally:
            await supervisor.stop()
            await running
            await self.close()

    async def close(self) -> None:
        await self.keeper.close()
        self.engine.dispose()

    def add(self, text: str | bytes, filename: str = "a.txt", **options: Any) -> Added:
        upload = self.data_dir.uploads / "upload_test"
        upload.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            return self.service.add(upload, **{"filename": filename, "title": None} | options)
        finally:
            upload.unlink(missing_ok=True)

    async def end_of(self, document: DocumentInfo) -> DocumentInfo:
        assert document.task_id is not None
        async with asyncio.timeout(30):
            async for _ in self.event_log.follow(document.task_id):
                pass
        return self.rows.find_document(document.id)

    async def added(self, text: str | bytes, filename: str = "a.txt", **options: Any) -> DocumentInfo:
        return await self.end_of(self.add(text, filename, **options).document)

    async def found(self, query: str, collection: str = "default") -> list[tuple[str, str]]:
        """Titles and texts of what is found, best first."""
        retrieved = await self.retriever.search(self.rows.find_collection(collection), query)
        return [(hit.title, hit.passage.text) for hit in retrieved.hits]


async def parse_here(
    path: Path, *, parser: str, filename: str, tokenizer: Path, title: str | None, **limits: Any
) -> ParsedDocument:
    reader = DocumentReader(parser=parser, tokenizer=load_tokenizer(tokenizer))
    return await asyncio.to_thread(reader.read, path, title=title, filename=filename)


def document_house(tmp_path: Path, store: VectorStore | None = None) -> DocumentHouse:
    house = DocumentHouse(tmp_path / "data", store)
    house.register_embedder(tmp_path / "embedder")
    return house
