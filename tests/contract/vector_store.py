"""What every vector store must do. A store's test inherits ``VectorStoreContract`` and gives it an empty store."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from terakoya.domain.document_ports import VectorStore
from terakoya.domain.documents import IndexPoint, SparseVector, StoreHit, Terms
from terakoya.domain.retrieval import DocumentFacts, Filters
from terakoya.exceptions import Conflict, InvalidConfig, RAGError
from terakoya.rag.retrieval.sparse import K1, B, passage_vector, query_vector
from terakoya.storage.files import new_id

DIMENSION = 8


def point(
    name: str, *, document: str = "doc", dense: Sequence[float] | None = None, terms: Terms | None = None
) -> IndexPoint:
    vector = np.asarray(dense if dense is not None else [1.0] + [0.0] * (DIMENSION - 1), dtype=np.float32)
    return IndexPoint(point_id(name), document, vector, passage_vector({1: 1} if terms is None else terms, 1.0))


def _seconds(day: str) -> float:
    return datetime.fromisoformat(f"{day}T23:59:59+00:00").timestamp()


def point_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def axis(number: int, *, tilt: float = 0.0) -> np.ndarray:
    vector = np.zeros(DIMENSION, dtype=np.float32)
    vector[number] = 1.0
    vector[(number + 1) % DIMENSION] = tilt
    return vector


def ids(hits: Sequence[StoreHit]) -> list[str]:
    return [hit.id for hit in hits]


CHOSEN = [
    replace(point("a", document="a"), facts=DocumentFacts("pdf", "ja", _seconds("2026-03-01"), ("人事",))),
    replace(point("b", document="b"), facts=DocumentFacts("pdf", "en", _seconds("2026-03-02"))),
    replace(point("c", document="c"), facts=DocumentFacts("html", "en", _seconds("2026-03-03"), ("人事", "it"))),
]


class VectorStoreContract:
    @pytest.fixture
    async def collection(self, store: VectorStore) -> str:
        collection_id = new_id("coll")
        await store.create(collection_id, dimension=DIMENSION)
        return collection_id

    async def test_a_collection_is_there_from_create_to_drop(self, store: VectorStore) -> None:
        collection_id = new_id("coll")
        assert not await store.exists(collection_id)
        await store.create(collection_id, dimension=DIMENSION)
        assert await store.exists(collection_id)
        assert await store.count(collection_id) == 0
        await store.drop(collection_id)
        assert not await store.exists(collection_id)

    async def test_creating_what_is_there_keeps_its_points(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point("a")])
        await store.create(collection, dimension=DIMENSION)
        assert await store.count(collection) == 1

    async def test_creating_with_another_dimension_is_a_conflict(self, store: VectorStore, collection: str) -> None:
        with pytest.raises(Conflict, match=f"{DIMENSION} dimensions, not 9"):
            await store.create(collection, dimension=9)

    async def test_dropping_nothing_is_no_error(self, store: VectorStore) -> None:
        await store.drop(new_id("coll"))

    async def test_a_dropped_collection_comes_back_empty(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point("a")])
        await store.drop(collection)
        await store.create(collection, dimension=2 * DIMENSION)
        assert await store.count(collection) == 0

    async def test_upserting_twice_leaves_one_point(self, store: VectorStore, collection: str) -> None:
        for _ in range(2):
            await store.upsert(collection, [point("a"), point("b")])
        assert await store.count(collection) == 2

    async def test_upserting_replaces_vectors_and_document(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point("a", document="old", terms={1: 1})])
        await store.upsert(collection, [point("a", document="new", dense=axis(3), terms={2: 1})])
        assert await store.count(collection, document_id="old") == 0
        assert await store.count(collection, document_id="new") == 1
        assert await store.search_sparse(collection, query_vector({1: 1}), limit=5) == []
        (hit,) = await store.search_dense(collection, axis(3), limit=5)
        assert hit.score == pytest.approx(1.0, abs=1e-5)

    async def test_more_points_than_one_batch_are_all_there(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point(f"p{number}") for number in range(150)])
        assert await store.count(collection) == 150

    async def test_upserting_nothing_does_nothing(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [])
        assert await store.count(collection) == 0

    async def test_dense_search_ranks_by_cosine(self, store: VectorStore, collection: str) -> None:
        tilts = {"near": 0.1, "middle": 0.7, "far": 3.0}
        await store.upsert(collection, [point(name, dense=axis(0, tilt=tilt)) for name, tilt in tilts.items()])
        hits = await store.search_dense(collection, axis(0), limit=2)
        assert ids(hits) == [point_id("near"), point_id("middle")]
        # Cosine of the angle whose tangent is the tilt.
        assert [hit.score for hit in hits] == pytest.approx([1 / math.hypot(1, 0.1), 1 / math.hypot(1, 0.7)], abs=1e-5)

    async def test_a_filter_holds_inside_the_search(self, store: VectorStore, collection: str) -> None:
        others = [point(f"other{number}", document="other", terms={1: 3}) for number in range(60)]
        await store.upsert(collection, [*others, point("mine", document="mine", dense=axis(0, tilt=2.0))])
        for hits in (
            await store.search_dense(collection, axis(0), limit=1, filters=Filters(document=("mine",))),
            await store.search_sparse(
                collection, query_vector({1: 1}), limit=1, filters=Filters(document=("mine", "absent"))
            ),
        ):
            assert ids(hits) == [point_id("mine")]

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({"type": ["pdf"]}, {"a", "b"}),
            ({"type": ["pdf", "html"], "language": ["en"]}, {"b", "c"}),
            ({"tags": ["人事", "none"]}, {"a", "c"}),
            ({"date_from": "2026-03-02"}, {"b", "c"}),
            ({"date_to": "2026-03-02"}, {"a", "b"}),
            ({"date_from": "2026-03-02", "date_to": "2026-03-02"}, {"b"}),
            ({"document": ["a", "b"], "language": ["ja"]}, {"a"}),
            ({"language": ["fr"]}, set()),
        ],
    )
    async def test_documents_are_chosen_by_what_is_known_of_them(
        self, store: VectorStore, collection: str, filters: dict[str, Any], found: set[str]
    ) -> None:
        await store.upsert(collection, CHOSEN)
        chosen = Filters.of(filters)
        names = {point_id(name): name for name in "abc"}
        for hits in (
            await store.search_dense(collection, axis(0), limit=9, filters=chosen),
            await store.search_sparse(collection, query_vector({1: 1}), limit=9, filters=chosen),
        ):
            assert {names[hit.id] for hit in hits} == found

    async def test_what_is_known_of_a_document_changes_for_all_its_points(
        self, store: VectorStore, collection: str
    ) -> None:
        await store.upsert(collection, [*CHOSEN, replace(CHOSEN[0], id=point_id("a2"))])
        await store.set_facts(collection, "a", replace(CHOSEN[0].facts, tags=("新",)))
        hits = await store.search_dense(collection, axis(0), limit=9, filters=Filters(tags=("新",)))
        assert set(ids(hits)) == {point_id("a"), point_id("a2")}
        assert ids(await store.search_dense(collection, axis(0), limit=9, filters=Filters(tags=("人事",)))) == [
            point_id("c")
        ]
        await store.set_facts(collection, "never", CHOSEN[0].facts)
        assert await store.count(collection) == 4

    async def test_a_deleted_document_is_gone(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point("a", document="gone"), point("b", document="kept")])
        await store.delete_document(collection, "gone")
        assert await store.count(collection) == 1
        assert await store.count(collection, document_id="gone") == 0
        assert ids(await store.search_dense(collection, axis(0), limit=5)) == [point_id("b")]
        assert ids(await store.search_sparse(collection, query_vector({1: 1}), limit=5)) == [point_id("b")]

    async def test_deleting_a_document_that_is_not_there_is_no_error(self, store: VectorStore, collection: str) -> None:
        await store.delete_document(collection, "never")

    async def test_sparse_scores_are_bm25(self, store: VectorStore, collection: str) -> None:
        passages = _random_passages()
        average = sum(sum(terms.values()) for terms in passages.values()) / len(passages)
        await store.upsert(
            collection,
            [
                IndexPoint(point_id(name), "doc", axis(0), passage_vector(terms, average))
                for name, terms in passages.items()
            ],
        )
        for query in ({3: 1, 7: 1}, {0: 1, 39: 2, 20: 1}, {4_294_967_295: 1, 5: 1}):
            expected = _bm25(passages, query, average)
            hits = await store.search_sparse(collection, query_vector(query), limit=10)
            # Scores rather than ids: passages of equal scores have no order. float32 holds seven digits.
            assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:10], rel=1e-5)
            for hit in hits:
                assert hit.score == pytest.approx(expected[hit.id], rel=1e-5)

    async def test_a_passage_without_terms_is_found_by_its_vector(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point("a", terms={})])
        assert ids(await store.search_dense(collection, axis(0), limit=5)) == [point_id("a")]
        assert await store.search_sparse(collection, SparseVector((), ()), limit=5) == []

    async def test_another_dimension_is_refused_and_nothing_is_stored(
        self, store: VectorStore, collection: str
    ) -> None:
        with pytest.raises(InvalidConfig, match=f"{DIMENSION} dimensions"):
            await store.upsert(collection, [point("a"), point("b", dense=[1.0, 0.0])])
        with pytest.raises(InvalidConfig, match=f"{DIMENSION} dimensions"):
            await store.search_dense(collection, np.ones(3, dtype=np.float32), limit=1)
        assert await store.count(collection) == 0

    async def test_a_vector_that_is_not_finite_is_refused(self, store: VectorStore, collection: str) -> None:
        with pytest.raises(InvalidConfig, match="finite"):
            await store.upsert(collection, [point("a", dense=[math.nan] * DIMENSION)])

    async def test_an_unknown_collection_is_an_error_that_says_what_to_do(self, store: VectorStore) -> None:
        unknown = new_id("coll")
        for call in (
            store.upsert(unknown, [point("a")]),
            store.count(unknown),
            store.delete_document(unknown, "doc"),
            store.search_dense(unknown, axis(0), limit=1),
            store.search_sparse(unknown, query_vector({1: 1}), limit=1),
        ):
            with pytest.raises(RAGError, match="rebuild"):
                await call

    async def test_document_ids_of_any_script_are_kept_apart(self, store: VectorStore, collection: str) -> None:
        names = ["契約書", "契約書２", "e\u0301", "\u00e9", "a b'\"", "🏫"]
        await store.upsert(collection, [point(name, document=name) for name in names])
        for name in names:
            hits = await store.search_dense(collection, axis(0), limit=9, filters=Filters(document=(name,)))
            assert ids(hits) == [point_id(name)]

    async def test_collections_do_not_mix(self, store: VectorStore, collection: str) -> None:
        other = new_id("coll")
        await store.create(other, dimension=DIMENSION)
        await store.upsert(other, [point(f"p{number}") for number in range(9)])
        await store.upsert(collection, [point("a")])
        (hit,) = await store.search_sparse(collection, query_vector({1: 1}), limit=5)
        assert hit.score == pytest.approx(math.log(1 + 0.5 / 1.5), rel=1e-5)

    async def test_searches_go_on_while_points_come_in(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point("first")])

        async def write(name: str) -> None:
            for number in range(5):
                await store.upsert(collection, [point(f"{name}{number}", dense=axis(number, tilt=0.5))])

        async def search() -> None:
            for _ in range(20):
                assert ids(await store.search_dense(collection, axis(0), limit=1)) == [point_id("first")]

        await asyncio.gather(write("x"), write("y"), search(), search())
        assert await store.count(collection) == 11

    async def test_optimizing_changes_nothing_that_is_found(self, store: VectorStore, collection: str) -> None:
        await store.upsert(collection, [point(f"p{number}", dense=axis(number)) for number in range(DIMENSION)])
        before = await store.search_dense(collection, axis(2), limit=3)
        await store.optimize(collection)
        assert ids(await store.search_dense(collection, axis(2), limit=1)) == ids(before[:1])
        assert await store.count(collection) == DIMENSION


def _random_passages() -> dict[str, Terms]:
    chance = random.Random(7)
    passages: dict[str, Terms] = {}
    for number in range(50):
        terms: Terms = {}
        for _ in range(chance.randint(1, 40)):
            term = int(40 * chance.random() ** 2)
            terms[term] = terms.get(term, 0) + 1
        passages[f"p{number}"] = terms
    passages["p0"][4_294_967_295] = 2
    return passages


def _bm25(passages: dict[str, Terms], query: Terms, average: float, k1: float = K1, b: float = B) -> dict[str, float]:
    """Robertson's formula, term by term, for the passages that hold any."""
    scores: dict[str, float] = {}
    for term, times in query.items():
        holding = sum(term in terms for terms in passages.values())
        idf = math.log(1 + (len(passages) - holding + 0.5) / (holding + 0.5))
        for name, terms in passages.items():
            if term in terms:
                count, length = terms[term], sum(terms.values())
                weight = count * (k1 + 1) / (count + k1 * (1 - b + b * length / average))
                key = point_id(name)
                scores[key] = scores.get(key, 0.0) + times * idf * weight
    return scores
