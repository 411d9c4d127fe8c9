"""One ranking from two: what the dense and the sparse search found, joined by score or by rank. Knows only ids."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from terakoya.domain.documents import StoreHit
from terakoya.domain.retrieval import RetrievalSettings

DEFAULT = RetrievalSettings()


@dataclass(frozen=True, slots=True)
class Fused:
    """A point of either list, with what each list said of it; ranks from 1."""

    id: str
    score: float
    dense_score: float | None = None
    dense_rank: int | None = None
    sparse_score: float | None = None
    sparse_rank: int | None = None


def fuse(dense: Sequence[StoreHit], sparse: Sequence[StoreHit], settings: RetrievalSettings = DEFAULT) -> list[Fused]:
    """Join two lists, each best first, into one, best first; equal scores keep the order of their ids.

    Weights are relative to the even one: with halves, a score is the plain sum of what the two lists give.
    """
    totals: dict[str, float] = {}
    for hits, weight in ((dense, settings.dense_weight), (sparse, 1 - settings.dense_weight)):
        for hit, share in zip(hits, _shares([hit.score for hit in hits], settings), strict=True):
            totals[hit.id] = totals.get(hit.id, 0.0) + 2 * weight * share
    by_dense, by_sparse = _places(dense), _places(sparse)
    missing = (None, None)
    fused = [
        Fused(point, score, *by_dense.get(point, missing), *by_sparse.get(point, missing))
        for point, score in totals.items()
    ]
    return sorted(fused, key=lambda one: (-one.score, one.id))


def dbsf(scores: Sequence[float]) -> list[float]:
    """Return where each score lies between the mean minus and plus three standard deviations.

    Source: Mazzeschi 2023, distribution-based score fusion; as in Qdrant, with the sample's deviation, without
    clipping, and 0.5 where there is no spread.
    """
    if len(scores) < 2:
        return [0.5] * len(scores)
    mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
    if deviation == 0:
        return [0.5] * len(scores)
    return [(score - mean + 3 * deviation) / (6 * deviation) for score in scores]


def min_max(scores: Sequence[float]) -> list[float]:
    """Return each score between the list's lowest, 0, and its highest, 1; 1 where all are equal."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    if low == high:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def rrf(scores: Sequence[float], k: int) -> list[float]:
    """Return 1 / (k + rank), whatever the scores are; Qdrant counts ranks from 0 and calls 60 its 61.

    Source: Cormack, Clarke and Büttcher 2009.
    """
    return [1 / (k + rank) for rank in range(1, len(scores) + 1)]


def _shares(scores: Sequence[float], settings: RetrievalSettings) -> list[float]:
    if settings.fusion == "rrf":
        return rrf(scores, settings.rrf_k)
    return dbsf(scores) if settings.fusion == "dbsf" else min_max(scores)


def _places(hits: Sequence[StoreHit]) -> dict[str, tuple[float, int]]:
    return {hit.id: (hit.score, rank) for rank, hit in enumerate(hits, start=1)}
