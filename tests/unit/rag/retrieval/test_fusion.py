from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from tests.contract.vector_store import DIMENSION, axis, point

from terakoya.domain.documents import StoreHit
from terakoya.exceptions import InvalidConfig
from terakoya.rag.retrieval.fusion import METHODS, fuse
from terakoya.rag.retrieval.sparse import query_vector
from terakoya.storage.vector_store.shard import Shard

DENSE = [StoreHit("a", 0.9), StoreHit("b", 0.8), StoreHit("c", 0.4)]
SPARSE = [StoreHit("b", 12.0), StoreHit("d", 7.0)]


def test_both_scores_and_ranks_are_kept() -> None:
    found = {one.id: one for one in fuse(DENSE, SPARSE)}
    assert (found["b"].dense_score, found["b"].dense_rank) == (0.8, 2)
    assert (found["b"].sparse_score, found["b"].sparse_rank) == (12.0, 1)
    assert found["d"].dense_score is found["d"].dense_rank is None
    assert len(found) == 4


@pytest.mark.parametrize("method", METHODS)
def test_what_both_lists_rank_high_is_first(method: str) -> None:
    fused = fuse(DENSE, SPARSE, method)
    assert fused[0].id == "b"
    assert [one.score for one in fused] == sorted((one.score for one in fused), reverse=True)


def test_min_max_is_the_sum_of_the_shares() -> None:
    scores = {one.id: one.score for one in fuse(DENSE, SPARSE, "min_max")}
    assert scores == pytest.approx({"b": 0.8 + 1.0, "a": 1.0, "c": 0.0, "d": 0.0})


def test_rrf_is_the_sum_of_reciprocal_ranks() -> None:
    scores = {one.id: one.score for one in fuse(DENSE, SPARSE, "rrf")}
    assert scores == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 63, "d": 1 / 62})


@pytest.mark.parametrize("method", METHODS)
def test_empty_single_and_equal_lists_have_finite_scores(method: str) -> None:
    equal = [StoreHit("x", 1.0), StoreHit("y", 1.0)]
    assert fuse([], [], method) == []
    for dense, sparse in ((equal, []), ([], equal), (equal[:1], equal)):
        assert all(np.isfinite(one.score) for one in fuse(dense, sparse, method))


def test_equal_scores_keep_the_order_of_ids() -> None:
    hits = [StoreHit("y", 1.0), StoreHit("x", 1.0)]
    assert [one.id for one in fuse(hits, [])] == ["x", "y"]


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidConfig, match="dbsf, min_max, rrf"):
        fuse(DENSE, SPARSE, "average")


@pytest.mark.parametrize(("method", "theirs"), [("dbsf", edge.Fusion.Dbsf()), ("rrf", edge.Fusion.Rrf(61))])
def test_it_is_what_qdrant_computes(tmp_path: Path, method: str, theirs: edge.Fusion) -> None:
    shard = Shard.create(tmp_path / "shard", dimension=DIMENSION)
    random = np.random.default_rng(3)
    shard.upsert(
        [
            point(
                f"p{number}",
                dense=random.normal(size=DIMENSION),
                terms={int(term): 1 for term in random.integers(9, size=4)},
            )
            for number in range(40)
        ]
    )
    vector, sparse = axis(1, tilt=0.3), query_vector({1: 1, 4: 1, 7: 2})
    query = edge.SparseVector(list(sparse.indices), list(sparse.values))
    request = edge.QueryRequest(
        limit=60,
        query=theirs,
        prefetches=[
            edge.Prefetch(limit=15, query=edge.Query.Nearest(vector.tolist(), using="dense")),
            edge.Prefetch(limit=15, query=edge.Query.Nearest(query, using="sparse")),
        ],
    )
    expected = {str(found.id): found.score for found in shard._shard.query(request)}
    fused = fuse(shard.search_dense(vector, 15, None), shard.search_sparse(sparse, 15, None), method)
    # They compute in float32.
    assert {one.id: one.score for one in fused} == pytest.approx(expected, abs=1e-5)
    shard.close()
