"""Embedding as the documents path meets it: the real embedder, fetched and converted, in a real model server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from tests.integration.servers import EMBEDDER

from terakoya.domain.datasets import Message
from terakoya.domain.documents import Vector
from terakoya.domain.models import ModelKind
from terakoya.exceptions import InvalidConfig, ModelNotFound
from terakoya.models.client import MAX_EMBED_TEXTS, ModelServerClient
from terakoya.models.embedder import RegisteredEmbedder
from terakoya.storage.database import open_database
from terakoya.storage.files import DataDir
from terakoya.storage.model_repository import SqlModelRepository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]
REFERENCE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "embedder_reference.json").read_text(encoding="utf-8")
)


@dataclass
class School:
    models: SqlModelRepository
    client: ModelServerClient
    embedder: RegisteredEmbedder

    async def embed(self, texts: list[str], *, is_query: bool) -> Vector:
        method = self.embedder.embed_queries if is_query else self.embedder.embed_passages
        return await method(EMBEDDER, texts)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def school(
    tmp_path_factory: pytest.TempPathFactory, folder_with_embedder: Callable[[Path], Path]
) -> AsyncIterator[School]:
    folder = tmp_path_factory.mktemp("embedding")
    data_dir = DataDir(folder_with_embedder(folder / "data"))
    engine = open_database(data_dir)
    models = SqlModelRepository(engine, data_dir)
    client = ModelServerClient(socket_path=folder / "s.sock", log_path=folder / "server.log", cache_bytes=1 << 30)
    yield School(models, client, RegisteredEmbedder(models, client))
    await client.stop()
    engine.dispose()


async def test_vectors_are_those_of_the_library_that_packed_the_model(school: School) -> None:
    """Its products are computed in 8 bits, ours are not: .9999 is how near the two come."""
    for is_query in (True, False):
        rows = [row for row in REFERENCE if row["is_query"] is is_query]
        vectors = await school.embed([row["text"] for row in rows], is_query=is_query)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
        for row, vector in zip(rows, vectors, strict=True):
            assert float(vector @ np.array(row["vector"])) > 0.999, row["text"]


async def test_a_question_is_nearest_to_the_passage_that_answers_it(school: School) -> None:
    queries = [row["text"] for row in REFERENCE if row["is_query"]]
    passages = [row["text"] for row in REFERENCE if not row["is_query"]]
    scores = await school.embed(queries, is_query=True) @ (await school.embed(passages, is_query=False)).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


async def test_a_vector_does_not_depend_on_what_is_embedded_beside_it(school: School) -> None:
    texts = ["短い文。", "A sentence of some length, " * 20, "x", "会議室の予約は社内ポータルから行います。" * 12] * 12
    assert len(texts) > MAX_EMBED_TEXTS
    together = await school.embed(texts, is_query=False)
    alone = np.concatenate([await school.embed([text], is_query=False) for text in texts[:4]])
    assert together.shape == (48, 384)
    cosines = (together * np.tile(alone, (12, 1))).sum(axis=1)
    np.testing.assert_array_less(1 - 1e-4, cosines)  # bfloat16, where the processor has it, rounds by the batch's shape


async def test_nothing_to_embed_is_no_error(school: School) -> None:
    assert (await school.embed([], is_query=False)).shape == (0, 384)


async def test_a_text_that_is_too_long_is_cut_and_named(school: School) -> None:
    artifact = school.models.load_model(EMBEDDER)
    long = "寺子屋で学ぶ。" * 400
    embedded = await school.client.embed(artifact, ["short", long, long + "別の終わり"], is_query=False)
    assert embedded.truncated == (1, 2)
    np.testing.assert_allclose(embedded.vectors[1], embedded.vectors[2], atol=1e-5)


async def test_a_query_does_not_wait_for_the_passages_before_it(school: School) -> None:
    await school.embed(["warm"], is_query=True)
    passages = asyncio.create_task(school.embed(["長い文書の一節です。" * 40] * 48, is_query=False))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await school.embed(["いつまでですか"], is_query=True)
    waited = time.monotonic() - started
    assert not passages.done()
    await passages
    assert waited < (time.monotonic() - started) / 2


async def test_work_stops_when_nobody_waits_for_it_any_more(school: School) -> None:
    passages = asyncio.create_task(school.embed(["長い文書の一節です。" * 40] * 32, is_query=False))
    await asyncio.sleep(0.5)
    passages.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passages
    # Other passages queue behind those that were given up, which take seconds if they are still computed.
    started = time.monotonic()
    await school.embed(["次の一節"], is_query=False)
    assert time.monotonic() - started < 3.0


async def test_an_embedder_says_what_it_is_and_does_not_chat(school: School) -> None:
    artifact = school.models.load_model(EMBEDDER)
    assert (artifact.info.kind, artifact.info.card["dimension"]) == (ModelKind.EMBEDDER, 384)
    with pytest.raises(InvalidConfig, match="is of the kind 'embedder'"):
        await anext(school.client.stream(artifact, [Message("user", "?")], max_new_tokens=1))


async def test_a_model_that_is_not_there_is_named(school: School) -> None:
    with pytest.raises(ModelNotFound, match="multilingual-e6"):
        await school.embedder.embed_queries("multilingual-e6", ["?"])
