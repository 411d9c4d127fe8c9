"""How well a score tells two groups apart, and how two rankings compare on the same examples. Seeded where chance is
used; knows nothing of what is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from terakoya.evaluation.statistics import CONFIDENCE, Interval, bootstrap_mean

SIGNIFICANCE = 0.05
_FEWEST = 6
"""As for the intervals of means: fewer say nothing."""
_RESAMPLES = 2_000
_FLIPS = 20_000
_CELLS_AT_ONCE = 4_000_000
_ROC_POINTS = 50


def area_under_curve(positive: Sequence[float], negative: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the chance that one of the first group scores higher than one of the second, ties counting half.

    With a percentile bootstrap that draws from each group; no interval with fewer than six in either.
    Source: Mann and Whitney 1947; Hanley and McNeil 1982 for its being the area under the ROC curve.
    """
    ours, theirs = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not len(ours) or not len(theirs):
        raise ValueError(f"needs one of each group at least; got {len(ours)} and {len(theirs)}")
    value = _area(ours, theirs)
    if min(len(ours), len(theirs)) < _FEWEST:
        return Interval(value, None, None)
    drawn = np.random.default_rng(seed)
    areas = [_area(drawn.choice(ours, len(ours)), drawn.choice(theirs, len(theirs))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(areas, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


def roc_points(positive: Sequence[float], negative: Sequence[float]) -> list[dict[str, float]]:
    """Return up to fifty thresholds with the shares of both groups that reach them, from the lowest threshold up."""
    ours, theirs = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    scores = np.unique(np.concatenate([ours, theirs]))
    chosen = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), _ROC_POINTS)).round().astype(int))
    return [
        {
            "threshold": round(float(scores[place]), 4),
            "kept": round(float((ours >= scores[place]).mean()), 4),
            "let_through": round(float((theirs >= scores[place]).mean()), 4),
        }
        for place in chosen
    ]


def bootstrap_quantile(values: Sequence[float], share: float, *, seed: int = 0) -> Interval:
    """Return a quantile (``share`` 0 to 1) with the percentile bootstrap; no interval for fewer than six values.

    Source: Efron 1979.
    """
    seen = np.asarray(values, dtype=np.float64)
    if not len(seen):
        raise ValueError("needs a value at least")
    value = float(np.quantile(seen, share))
    if len(seen) < _FEWEST:
        return Interval(value, None, None)
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // len(seen))
    found: list[NDArray[np.float64]] = []
    for start in range(0, _RESAMPLES, at_once):
        rows = min(at_once, _RESAMPLES - start)
        found.append(np.quantile(seen[random.integers(len(seen), size=(rows, len(seen)))], share, axis=1))
    low, high = np.quantile(np.concatenate(found), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Of a second way against a first one, on the same examples."""

    difference: Interval
    p: float
    examples: int
    differing: int
    """Examples on which the two differ at all."""

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "no_significant_difference"."""
        if self.p >= SIGNIFICANCE:
            return "no_significant_difference"
        return "better" if self.difference.value > 0 else "worse"

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "verdict": self.verdict}


def compare_pairs(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> PairedComparison:
    """Return by how much the mean rose, with an interval, and how likely chance alone does as much.

    The p-value is that of the randomisation test: the sign of each difference is flipped at random, 20,000 times.
    Source: Fisher 1935; Smucker, Allan and Carterette 2007 for rankings.
    """
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    if not len(differences):
        raise ValueError("needs a pair at least")
    moved = differences[differences != 0]
    interval = bootstrap_mean(differences.tolist(), seed=seed)
    return PairedComparison(interval, _randomisation_p(moved, seed), len(differences), len(moved))


def _randomisation_p(moved: NDArray[np.float64], seed: int) -> float:
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()  # equal sums differ in their last bit
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // len(moved))
    as_far = 0
    for start in range(0, _FLIPS, at_once):
        rows = min(at_once, _FLIPS - start)
        signs = random.integers(2, size=(rows, len(moved))) * 2.0 - 1.0
        as_far += int((np.abs(signs @ np.abs(moved)) >= seen).sum())
    return (as_far + 1) / (_FLIPS + 1)


def _area(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).mean() / 2 / len(negative))
