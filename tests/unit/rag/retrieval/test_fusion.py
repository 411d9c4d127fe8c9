from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge
from tests.contract.vector_store import DIMENSION, axis, point

from terakoya.domain.document_ports import EVERYTHING
from terakoya.domain.documents import StoreHit
from terakoya.domain.retrieval import FUSIONS, Fusion, RetrievalSettings
from terakoya.exceptions import InvalidConfig
from terakoya.rag.retrieval.fusion import fuse
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


@pytest.mark.parametrize("method", FUSIONS)
def test_what_both_lists_rank_high_is_first(method: Fusion) -> None:
    fused = fuse(DENSE, SPARSE, RetrievalSettings(method))
    assert fused[0].id == "b"
    assert [one.score for one in fused] == sorted((one.score for one in fused), reverse=True)


def test_weighted_by_halves_is_the_sum_of_the_shares() -> None:
    scores = {one.id: one.score for one in fuse(DENSE, SPARSE, RetrievalSettings("weighted"))}
    assert scores == pytest.approx({"b": 0.8 + 1.0, "a": 1.0, "c": 0.0, "d": 0.0})


def test_rrf_is_the_sum_of_reciprocal_ranks() -> None:
    scores = {one.id: one.score for one in fuse(DENSE, SPARSE, RetrievalSettings("rrf"))}
    assert scores == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 63, "d": 1 / 62})


@pytest.mark.parametrize("method", FUSIONS)
def test_empty_single_and_equal_lists_have_finite_scores(method: Fusion) -> None:
    equal = [StoreHit("x", 1.0), StoreHit("y", 1.0)]
    assert fuse([], [], RetrievalSettings(method)) == []
    for dense, sparse in ((equal, []), ([], equal), (equal[:1], equal)):
        assert all(np.isfinite(one.score) for one in fuse(dense, sparse, RetrievalSettings(method)))


def test_equal_scores_keep_the_order_of_ids() -> None:
    hits = [StoreHit("y", 1.0), StoreHit("x", 1.0)]
    assert [one.id for one in fuse(hits, [])] == ["x", "y"]


@pytest.mark.parametrize("method", FUSIONS)
def test_a_weight_of_one_leaves_the_order_of_one_list(method: Fusion) -> None:
    only_dense = fuse(DENSE, SPARSE, RetrievalSettings(method, dense_weight=1.0))
    assert [one.id for one in only_dense[:3]] == ["a", "b", "c"]
    only_sparse = fuse(DENSE, SPARSE, RetrievalSettings(method, dense_weight=0.0))
    assert only_sparse[0].id == "b"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fusion": "average"}, "choose one of dbsf, rrf, weighted"),
        ({"fusionn": "rrf"}, "no retrieval setting 'fusionn'; known are candidates, dense_weight"),
        ({"dense_weight": 1.5}, "from 0 to 1; got 1.5"),
        ({"dense_weight": float("nan")}, "got nan"),
        ({"dense_weight": True}, "got True"),
        ({"candidates": 10**9}, "from 10 to 1000"),
        ({"candidates": 20.5}, "whole number"),
        ({"rrf_k": 0}, "from 1 to 1000"),
    ],
)
def test_settings_out_of_their_range_are_refused_by_name(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        RetrievalSettings.of(values)


@pytest.mark.parametrize(("method", "theirs"), [("dbsf", edge.Fusion.Dbsf()), ("rrf", edge.Fusion.Rrf(61))])
def test_it_is_what_qdrant_computes(tmp_path: Path, method: Fusion, theirs: edge.Fusion) -> None:
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
    found = shard.search_dense(vector, 15, EVERYTHING), shard.search_sparse(sparse, 15, EVERYTHING)
    fused = fuse(*found, RetrievalSettings(method))
    # They compute in float32.
    assert {one.id: one.score for one in fused} == pytest.approx(expected, abs=1e-5)
    shard.close()
