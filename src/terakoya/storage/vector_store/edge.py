"""The vector store in this process: one Qdrant Edge shard a collection, in its own folder. Knows nothing of documents
beyond their ids.

``<folder>/current.json`` names the shard that counts and its dimension, and is replaced by rename: a collection is
there or not, never half made. An index that cannot be opened is an error that names the way out; it is not deleted.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from terakoya.domain.document_ports import EVERYTHING
from terakoya.domain.documents import IndexPoint, SparseVector, StoreHit, Vector
from terakoya.domain.retrieval import DocumentFacts, Filters
from terakoya.exceptions import Conflict, InvalidConfig, RAGError
from terakoya.storage.files import full_disk_is_named, new_id, sync_directory, write_durably
from terakoya.storage.vector_store.checking import check_points, check_vector
from terakoya.storage.vector_store.optimizing import optimize_copy
from terakoya.storage.vector_store.shard import Shard, named_error
from terakoya.storage.vector_store.threads import to_the_end

_CURRENT = "current.json"


@dataclass(frozen=True, slots=True)
class _Index:
    shard: Shard
    folder: Path
    dimension: int


class EdgeVectorStore:
    """``folder_of`` gives a collection's folder, as ``DataDir.index`` does.

    To be used on one event loop. Writes of a collection wait for each other and for ``optimize``; searches do not.
    """

    def __init__(self, folder_of: Callable[[str], Path]) -> None:
        self._folder_of = folder_of
        self._open: dict[str, _Index] = {}
        self._lock = threading.RLock()
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, collection_id: str, *, dimension: int) -> None:
        await to_the_end(self._create, collection_id, dimension)

    async def exists(self, collection_id: str) -> bool:
        return await asyncio.to_thread((self._folder_of(collection_id) / _CURRENT).exists)

    async def drop(self, collection_id: str) -> None:
        async with self._writing[collection_id]:
            await to_the_end(self._drop, collection_id)

    async def upsert(self, collection_id: str, points: Sequence[IndexPoint]) -> None:
        def write() -> None:
            index = self._index(collection_id)
            check_points(points, index.dimension)
            index.shard.upsert(points)
            index.shard.flush()

        async with self._writing[collection_id]:
            await to_the_end(write)

    async def delete_document(self, collection_id: str, document_id: str) -> None:
        def delete() -> None:
            shard = self._index(collection_id).shard
            shard.delete_document(document_id)
            shard.flush()

        async with self._writing[collection_id]:
            await to_the_end(delete)

    async def set_facts(self, collection_id: str, document_id: str, facts: DocumentFacts) -> None:
        def write() -> None:
            shard = self._index(collection_id).shard
            shard.set_facts(document_id, facts)
            shard.flush()

        async with self._writing[collection_id]:
            await to_the_end(write)

    async def count(self, collection_id: str, *, document_id: str | None = None) -> int:
        return await asyncio.to_thread(lambda: self._index(collection_id).shard.count(document_id))

    async def search_dense(
        self, collection_id: str, vector: Vector, *, limit: int, filters: Filters = EVERYTHING
    ) -> Sequence[StoreHit]:
        def search() -> list[StoreHit]:
            index = self._index(collection_id)
            check_vector(vector, index.dimension)
            return index.shard.search_dense(vector, limit, filters)

        return await asyncio.to_thread(search)

    async def search_sparse(
        self, collection_id: str, vector: SparseVector, *, limit: int, filters: Filters = EVERYTHING
    ) -> Sequence[StoreHit]:
        return await asyncio.to_thread(lambda: self._index(collection_id).shard.search_sparse(vector, limit, filters))

    async def optimize(self, collection_id: str) -> None:
        """In a copy, by another process: searches go on, writes wait."""
        async with self._writing[collection_id]:
            index = await asyncio.to_thread(self._index, collection_id)
            copy = index.folder.with_name(new_id("shard"))
            await optimize_copy(index.folder, copy)
            await to_the_end(self._replace, collection_id, index, copy)

    async def close(self) -> None:
        def close_all() -> None:
            with self._lock:
                while self._open:
                    self._open.popitem()[1].shard.close()

        await asyncio.to_thread(close_all)

    def _index(self, collection_id: str) -> _Index:
        """The open index, opened now if need be."""
        with self._lock:
            if collection_id not in self._open:
                folder = self._folder_of(collection_id)
                current = _read_current(folder)
                if current is None:
                    raise RAGError(
                        f"the collection {collection_id!r} has no search index; "
                        "`terakoya documents rebuild COLLECTION` makes one from its documents"
                    )
                name, dimension = current
                self._open[collection_id] = _Index(Shard.load(folder / name), folder / name, dimension)
                _remove_others(folder, name)
            return self._open[collection_id]

    def _create(self, collection_id: str, dimension: int) -> None:
        if not 1 <= dimension <= 65_536:
            raise InvalidConfig(f"vectors have 1 to 65,536 dimensions; got {dimension!r}")
        folder = self._folder_of(collection_id)
        with self._lock:
            current = _read_current(folder)
            if current is not None:
                if current[1] != dimension:
                    raise Conflict(
                        f"the index of {collection_id!r} has vectors of {current[1]} dimensions, not {dimension}; "
                        "drop it before making another"
                    )
                return
            with full_disk_is_named(folder):
                folder.mkdir(exist_ok=True)
                sync_directory(folder.parent)
                index = _Index(Shard.create(shard := folder / new_id("shard"), dimension=dimension), shard, dimension)
                _write_current(index)
            self._open[collection_id] = index

    def _replace(self, collection_id: str, old: _Index, folder: Path) -> None:
        """Let the shard in ``folder`` be the one that counts."""
        index = _Index(Shard.load(folder), folder, old.dimension)
        with self._lock:
            _write_current(index)
            self._open[collection_id] = index
        # Not closed: a search may be using it, and it closes with its last user.
        shutil.rmtree(old.folder)

    def _drop(self, collection_id: str) -> None:
        folder = self._folder_of(collection_id)
        with self._lock:
            if not folder.exists():
                return
            if collection_id in self._open:
                self._open.pop(collection_id).shard.close()
            else:
                _refuse_if_in_use(folder)
            (folder / _CURRENT).unlink(missing_ok=True)
            sync_directory(folder)
            shutil.rmtree(folder)
            sync_directory(folder.parent)


def _read_current(folder: Path) -> tuple[str, int] | None:
    try:
        content = json.loads((folder / _CURRENT).read_bytes())
        return str(content["shard"]), int(content["dimension"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise named_error(f"{_CURRENT!r} is damaged: {error}", folder) from error


def _write_current(index: _Index) -> None:
    content = {"shard": index.folder.name, "dimension": index.dimension}
    write_durably(index.folder.with_name(_CURRENT), json.dumps(content).encode())


def _remove_others(folder: Path, current: str) -> None:
    """What an interrupted ``create`` or ``optimize`` left."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != current:
            shutil.rmtree(path)


def _refuse_if_in_use(folder: Path) -> None:
    """Raises: Conflict if another process has the index open; whatever else is wrong with it may be dropped."""
    try:
        current = _read_current(folder)
        if current is not None:
            Shard.load(folder / current[0]).close()
    except RAGError:
        return
