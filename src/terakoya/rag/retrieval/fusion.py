"""One ranking from two: what the dense and the sparse search found, joined by score or by rank. Knows only ids."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from terakoya.domain.documents import StoreHit
from terakoya.exceptions import InvalidConfig

RRF_K = 60
"""As in the paper; Qdrant counts ranks from 0 and calls it 61."""


@dataclass(frozen=True, slots=True)
class Fused:
    """A point of either list, with what each list said of it; ranks from 1."""

    id: str
    score: float
    dense_score: float | None = None
    dense_rank: int | None = None
    sparse_score: float | None = None
    sparse_rank: int | None = None


def fuse(dense: Sequence[StoreHit], sparse: Sequence[StoreHit], method: str = "dbsf") -> list[Fused]:
    """Join two lists, each best first, into one, best first; equal scores keep the order of their ids.

    Raises: InvalidConfig on a method that is not in ``METHODS``.
    """
    if method not in METHODS:
        raise InvalidConfig(f"there is no fusion {method!r}; choose one of {', '.join(METHODS)}")
    totals: dict[str, float] = {}
    for hits in (dense, sparse):
        for hit, share in zip(hits, METHODS[method]([hit.score for hit in hits]), strict=True):
            totals[hit.id] = totals.get(hit.id, 0.0) + share
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


def rrf(scores: Sequence[float], k: int = RRF_K) -> list[float]:
    """Return 1 / (k + rank), whatever the scores are. Source: Cormack, Clarke and Büttcher 2009."""
    return [1 / (k + rank) for rank in range(1, len(scores) + 1)]


METHODS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {"dbsf": dbsf, "min_max": min_max, "rrf": rrf}


def _places(hits: Sequence[StoreHit]) -> dict[str, tuple[float, int]]:
    return {hit.id: (hit.score, rank) for rank, hit in enumerate(hits, start=1)}
