"""Over qdrant-client's stand-in in memory, and over a real server where TERAKOYA_TEST_QDRANT_URL names one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient
from tests.contract.vector_store import VectorStoreContract

from terakoya.exceptions import Unavailable
from terakoya.storage.files import new_id
from terakoya.storage.vector_store.server import ServerVectorStore

URL = os.environ.get("TERAKOYA_TEST_QDRANT_URL")


# The stand-in has no payload indexes and says so.
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
class TestInMemory(VectorStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[ServerVectorStore]:
        store = ServerVectorStore(AsyncQdrantClient(":memory:"))
        yield store
        await store.close()


@pytest.mark.skipif(not URL, reason="TERAKOYA_TEST_QDRANT_URL names no Qdrant server")
class TestRealServer(VectorStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[ServerVectorStore]:
        client = AsyncQdrantClient(url=URL, api_key=os.environ.get("TERAKOYA_TEST_QDRANT_API_KEY"))
        prefix = new_id("test")
        yield ServerVectorStore(client, prefix=prefix)
        for collection in (await client.get_collections()).collections:
            if collection.name.startswith(prefix):
                await client.delete_collection(collection.name)
        await client.close()


async def test_a_server_that_does_not_answer_is_unavailable() -> None:
    store = ServerVectorStore(AsyncQdrantClient(url="http://127.0.0.1:9", timeout=2, check_compatibility=False))
    with pytest.raises(Unavailable, match="TERAKOYA_QDRANT_URL"):
        await store.count(new_id("coll"))
    await store.close()
