from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.vector_store import DIMENSION, VectorStoreContract, axis, ids, point, point_id

from terakoya.exceptions import Conflict, NotFound, RAGError
from terakoya.rag.retrieval.sparse import query_vector
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.vector_store.edge import EdgeVectorStore

WRITER = """
import asyncio, sys
from pathlib import Path
from tests.contract.vector_store import DIMENSION, point
from terakoya.storage.files import DataDir
from terakoya.storage.vector_store.edge import EdgeVectorStore

async def write():
    store = EdgeVectorStore(DataDir(Path(sys.argv[1])).index)
    await store.create(sys.argv[2], dimension=DIMENSION)
    for number in range(10_000):
        await store.upsert(sys.argv[2], [point(f"p{number}")])
        print(number, flush=True)

asyncio.run(write())
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data").create()


class TestEdge(VectorStoreContract):
    @pytest.fixture
    async def store(self, data_dir: DataDir) -> AsyncIterator[EdgeVectorStore]:
        store = EdgeVectorStore(data_dir.index)
        yield store
        await store.close()

    async def test_what_was_written_and_deleted_is_so_after_reopening(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir
    ) -> None:
        await store.upsert(collection, [point("a", document="gone"), point("b", document="kept", terms={5: 1})])
        await store.delete_document(collection, "gone")
        await store.close()
        reopened = EdgeVectorStore(data_dir.index)
        assert await reopened.count(collection, document_id="gone") == 0
        assert ids(await reopened.search_dense(collection, axis(0), limit=5)) == [point_id("b")]
        assert ids(await reopened.search_sparse(collection, query_vector({5: 1}), limit=5)) == [point_id("b")]
        await reopened.close()

    async def test_frequencies_forget_deleted_points_once_reopened(
        self, store: EdgeVectorStore, collection: str
    ) -> None:
        await store.upsert(collection, [point("a", terms={1: 1}), point("b", document="gone", terms={1: 1, 2: 1})])
        await store.delete_document(collection, "gone")
        await store.close()
        (hit,) = await store.search_sparse(collection, query_vector({1: 1}), limit=5)
        # One passage of one holds the term.
        assert hit.score == pytest.approx(math.log(1 + (1 - 1 + 0.5) / (1 + 0.5)), rel=1e-5)

    async def test_it_opens_again_after_close(self, store: EdgeVectorStore, collection: str) -> None:
        await store.upsert(collection, [point("a")])
        await store.close()
        assert await store.count(collection) == 1

    async def test_a_second_opener_is_refused(self, store: EdgeVectorStore, collection: str, data_dir: DataDir) -> None:
        second = EdgeVectorStore(data_dir.index)
        with pytest.raises(Conflict, match="open in another process"):
            await second.count(collection)
        with pytest.raises(Conflict, match="open in another process"):
            await second.drop(collection)
        assert await store.count(collection) == 0

    async def test_a_damaged_index_is_an_error_and_stays_until_it_is_dropped(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir
    ) -> None:
        await store.upsert(collection, [point("a")])
        await store.close()
        (config,) = data_dir.index(collection).glob("*/edge_config.json")
        for damaged in [*config.parent.glob("segments/*/segment.json"), config]:
            damaged.write_bytes(b"\x00 not json")
        before = sorted(data_dir.index(collection).rglob("*"))
        with pytest.raises(RAGError, match="documents rebuild"):
            await store.count(collection)
        assert sorted(data_dir.index(collection).rglob("*")) == before
        await store.drop(collection)
        await store.create(collection, dimension=DIMENSION)
        assert await store.count(collection) == 0

    async def test_files_cut_short_that_make_the_library_panic_are_an_error_too(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir
    ) -> None:
        await store.upsert(collection, [point("a")])
        await store.close()
        for cut in data_dir.index(collection).glob("*/segments/*/vector_storage-dense/*/status.dat"):
            cut.write_bytes(b"")
        with pytest.raises(RAGError, match="documents rebuild"):
            await store.search_dense(collection, axis(0), limit=1)

    async def test_a_damaged_pointer_is_an_error_that_names_the_way_out(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir
    ) -> None:
        await store.close()
        (data_dir.index(collection) / "current.json").write_text('{"shard": 1')
        with pytest.raises(RAGError, match="documents rebuild"):
            await store.count(collection)

    async def test_what_an_interrupted_create_left_is_removed(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir
    ) -> None:
        await store.close()
        left = data_dir.index(collection) / "shard_left"
        left.mkdir()
        assert await store.count(collection) == 0
        assert not left.exists()

    async def test_searches_go_on_while_it_is_optimized(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir
    ) -> None:
        await store.upsert(collection, [point(f"p{number}", dense=axis(number)) for number in range(DIMENSION)])
        optimizing = asyncio.create_task(store.optimize(collection))
        searches = 0
        while not optimizing.done():
            assert ids(await store.search_dense(collection, axis(2), limit=1)) == [point_id("p2")]
            searches += 1
        await optimizing
        await store.upsert(collection, [point("after")])
        await store.close()
        assert searches > 10
        assert await store.count(collection) == DIMENSION + 1
        assert len(list(data_dir.index(collection).glob("shard_*"))) == 1

    @pytest.mark.parametrize("after_seconds", [0.0, 0.005, 0.05])
    async def test_cancelled_optimizing_leaves_the_index_as_it_was(
        self, store: EdgeVectorStore, collection: str, data_dir: DataDir, after_seconds: float
    ) -> None:
        await store.upsert(collection, [point("a")])
        optimizing = asyncio.create_task(store.optimize(collection))
        await asyncio.sleep(after_seconds)
        optimizing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await optimizing
        assert len(list(data_dir.index(collection).glob("shard_*"))) == 1
        await store.upsert(collection, [point("b")])
        assert await store.count(collection) == 2

    async def test_what_is_no_id_never_becomes_a_path(self, store: EdgeVectorStore) -> None:
        with pytest.raises(NotFound, match="not an id"):
            await store.create("../outside", dimension=DIMENSION)

    @pytest.mark.parametrize("acknowledged", [1, 12])
    async def test_acknowledged_points_survive_kill_9(self, data_dir: DataDir, acknowledged: int) -> None:
        collection = new_id("coll")
        writer = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
            [sys.executable, "-c", WRITER, str(data_dir.root), collection],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the code under test, from wherever it is
        )
        assert writer.stdout is not None
        seen = 0
        for line in writer.stdout:
            seen = int(line) + 1
            if seen == acknowledged:
                break
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert seen == acknowledged  # else it ended by itself
        store = EdgeVectorStore(data_dir.index)
        hits = await store.search_dense(collection, axis(0), limit=10_000)
        assert set(ids(hits)) >= {point_id(f"p{number}") for number in range(seen)}
        assert await store.count(collection) == len(hits)
        await store.close()
