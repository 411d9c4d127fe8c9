"""Over a real database and a real Qdrant Edge index; only the embedder is a stand-in, which compares words."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_stand_ins import DIMENSION, WordEmbedder
from terakoya.domain.documents import CollectionInfo, IndexPoint, Language, Passage, Vector
from terakoya.domain.retrieval import FUSIONS, Filters, Fusion, RetrievalSettings
from terakoya.exceptions import InvalidConfig, InvalidQuery, ModelNotFound, RAGError, Unavailable
from terakoya.rag.retrieval.analysis import terms_of
from terakoya.rag.retrieval.retriever import MAX_QUERY, Retriever
from terakoya.rag.retrieval.sparse import passage_vector
from terakoya.storage.database import open_database
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.files import DataDir
from terakoya.storage.vector_store.edge import EdgeVectorStore

RULES = ["返品は商品の到着から30日以内に限ります。", "送料は全国一律500円です。", "電球の保証期間は2年間です。"]
MANUAL = ["The lamp KX-200 needs two batteries.", "Returns are accepted within 30 days."]


class Broken(WordEmbedder):
    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        raise Unavailable("the model server is starting")


@dataclass
class Library:
    documents: SqlDocumentRepository
    store: EdgeVectorStore
    collection_id: str
    data_dir: DataDir

    @property
    def collection(self) -> CollectionInfo:
        return self.documents.find_collection(self.collection_id)

    @property
    def retriever(self) -> Retriever:
        return Retriever(store=self.store, documents=self.documents, embedder=WordEmbedder())

    async def add(self, title: str, texts: Sequence[str], *, ready: bool = True) -> str:
        upload = self.data_dir.uploads / "upload"
        upload.write_text("\n".join(texts))
        document = self.documents.add_document(
            self.collection_id,
            upload,
            title=title,
            filename=f"{title}.txt",
            parser="plain",
            content_sha256=uuid.uuid4().hex * 2,
        )
        passages, at = [], 0
        for ordinal, text in enumerate(texts):
            passage_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{document.id}{ordinal}"))
            passages.append((Passage(passage_id, document.id, 1, ordinal, at, at + len(text), text), terms_of(text)))
            at += len(text) + 1
        self.documents.save_parsed(
            document.id,
            text="\n".join(texts),
            title=None,
            language=Language.JAPANESE,
            pages=None,
            notices=(),
            passages=passages,
        )
        vectors = await WordEmbedder().embed_passages("e5", texts)
        await self.store.create(self.collection_id, dimension=DIMENSION)
        await self.store.upsert(
            self.collection_id,
            [
                IndexPoint(passage.id, document.id, vector, passage_vector(terms, 10.0))
                for (passage, terms), vector in zip(passages, vectors, strict=True)
            ],
        )
        if ready:
            self.documents.set_ready(document.id)
        return document.id


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    data_dir = DataDir(tmp_path / "data").create()
    engine = open_database(data_dir)
    documents = SqlDocumentRepository(engine, data_dir)
    collection = documents.add_collection("shop", embedder_id="e5", embedder_sha256="a" * 64, dimension=DIMENSION)
    library = Library(documents, EdgeVectorStore(data_dir.index), collection.id, data_dir)
    yield library
    await library.store.close()
    engine.dispose()


async def test_the_passage_that_fits_is_first_with_its_title_and_ranks(library: Library) -> None:
    await library.add("Rules", RULES)
    await library.add("Manual", MANUAL)
    found = await library.retriever.search(library.collection, " 返品は何日以内ですか \n")
    assert found.query == "返品は何日以内ですか"
    assert found.language is Language.JAPANESE
    assert found.terms == terms_of("返品は何日以内ですか")
    best = found.hits[0]
    assert (best.passage.text, best.title) == (RULES[0], "Rules")
    assert (best.dense_rank, best.sparse_rank) == (1, 1)
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert found.seconds.keys() == {"analyse", "embed", "dense", "sparse", "fuse", "fetch"}
    assert np.linalg.norm(found.query_vector) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
async def test_a_model_number_is_found_by_every_fusion(library: Library, fusion: Fusion) -> None:
    await library.add("Rules", RULES)
    await library.add("Manual", MANUAL)
    found = await library.retriever.search(
        library.collection, "KX200 batteries", limit=1, settings=RetrievalSettings(fusion)
    )
    assert [hit.passage.text for hit in found.hits] == MANUAL[:1]


async def test_only_the_documents_asked_for_are_searched(library: Library) -> None:
    await library.add("Rules", RULES)
    manual = await library.add("Manual", MANUAL)
    found = await library.retriever.search(library.collection, "返品 30日", filters=Filters(document=(manual,)))
    assert {hit.passage.document_id for hit in found.hits} == {manual}


async def test_a_document_deleted_after_it_was_found_is_left_out(library: Library) -> None:
    rules = await library.add("Rules", RULES)
    await library.add("Manual", MANUAL)
    collection = library.collection
    library.documents.delete_document(rules)  # the index still holds it
    found = await library.retriever.search(collection, "返品 Returns", limit=5)
    assert {hit.passage.text for hit in found.hits} == set(MANUAL)


async def test_a_document_that_is_not_ready_is_not_found(library: Library) -> None:
    await library.add("Rules", RULES, ready=False)
    await library.add("Manual", MANUAL)
    found = await library.retriever.search(library.collection, "返品")
    assert {hit.title for hit in found.hits} == {"Manual"}


async def test_an_empty_collection_has_no_hits_and_wakes_no_model(library: Library) -> None:
    retriever = Retriever(store=library.store, documents=library.documents, embedder=Broken())
    found = await retriever.search(library.collection, "返品は？")
    assert found.hits == ()
    assert not found.query_vector.any()


async def test_a_question_of_stop_words_is_left_to_the_dense_search(library: Library) -> None:
    await library.add("Manual", MANUAL)
    found = await library.retriever.search(library.collection, "what is it")
    assert found.terms == {}
    assert all(hit.sparse_rank is None for hit in found.hits)
    assert len(found.hits) == len(MANUAL)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "empty"),
        (" \n\u3000", "empty"),
        ("？！。", "no letter or digit"),
        ("🙂", "no letter or digit"),
        ("x" * (MAX_QUERY + 1), "8,001 characters; at most 8,000"),
        ("a" * 100_000, "100,000 characters"),
        ("返品\ud800", "surrogate"),
    ],
)
async def test_a_question_that_cannot_be_looked_for_is_refused(library: Library, query: str, says: str) -> None:
    with pytest.raises(InvalidQuery, match=says):
        await library.retriever.search(library.collection, query)


async def test_the_longest_question_is_answered(library: Library) -> None:
    await library.add("Rules", RULES)
    assert (await library.retriever.search(library.collection, "返品" * (MAX_QUERY // 2))).hits


@pytest.mark.parametrize("limit", [0, 1001])
async def test_bounds_are_kept(library: Library, limit: int) -> None:
    with pytest.raises(InvalidConfig, match="1 to 1,000 passages"):
        await library.retriever.search(library.collection, "返品", limit=limit)


async def test_weights_decide_which_search_counts(library: Library) -> None:
    await library.add("Rules", RULES)
    found = [
        await library.retriever.search(library.collection, "返品", settings=RetrievalSettings("weighted", weight))
        for weight in (0.0, 1.0)
    ]
    by_words, by_meaning = ({hit.passage.text: hit.score for hit in one.hits} for one in found)
    assert by_words[RULES[0]] == 2.0
    assert by_words[RULES[1]] == 0.0
    assert by_meaning[RULES[0]] == 2.0


async def test_a_model_server_that_is_not_there_is_said(library: Library) -> None:
    await library.add("Rules", RULES)
    retriever = Retriever(store=library.store, documents=library.documents, embedder=Broken())
    with pytest.raises(Unavailable):
        await retriever.search(library.collection, "返品")


async def test_a_lost_index_is_said_with_the_way_out(library: Library) -> None:
    await library.add("Rules", RULES)
    await library.store.drop(library.collection_id)
    with pytest.raises(RAGError, match="documents rebuild"):
        await library.retriever.search(library.collection, "返品")


async def test_many_questions_at_once_find_what_each_asks(library: Library) -> None:
    await library.add("Rules", RULES)
    questions = ["返品", "送料", "保証"] * 8
    found = await asyncio.gather(*(library.retriever.search(library.collection, one, limit=1) for one in questions))
    assert [one.hits[0].passage.text for one in found] == [*RULES] * 8


async def test_when_one_search_fails_the_other_does_not_go_on(library: Library) -> None:
    ended: list[bool] = []

    class Slow(WordEmbedder):
        async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)
            return await super().embed_queries(model_id, texts)

    await library.add("rules", RULES)
    await library.store.drop(library.collection_id)
    retriever = Retriever(store=library.store, documents=library.documents, embedder=Slow())
    with pytest.raises(RAGError, match="has no search index"):
        await retriever.search(library.collection, "送料")
    assert ended == [True]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"author": ["x"]}, "no filter 'author'; known are document, type, language, tags, date_from, date_to"),
        ({"tags": []}, "has 1 to 1,000 values; got 0"),
        ({"type": [3]}, "is a list of texts"),
        ({"date_from": "yesterday"}, "a day such as 2026-01-31"),
        ({"date_from": "2026-02-01", "date_to": "2026-01-01"}, "is after date_to"),
        ({"document": ["d"] * 1001}, "got 1001"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_by_name(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        Filters.of(values)


async def test_an_index_that_knows_no_filters_says_so_instead_of_finding_nothing(library: Library) -> None:
    await library.add("Rules", RULES)
    old = replace(library.collection, can_filter=False)
    with pytest.raises(Unavailable, match="earlier version"):
        await library.retriever.search(old, "返品", filters=Filters(language=("ja",)))
    assert (await library.retriever.search(old, "返品")).hits


class Gone(WordEmbedder):
    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        raise ModelNotFound(f"no model {model_id!r}")


async def test_a_collection_whose_embedder_is_gone_says_what_that_means(library: Library) -> None:
    await library.add("Rules", RULES)
    retriever = Retriever(store=library.store, documents=library.documents, embedder=Gone())
    with pytest.raises(ModelNotFound, match="'shop' was embedded by a model that is not here any more"):
        await retriever.search(library.collection, "返品")
