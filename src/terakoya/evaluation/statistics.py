"""Intervals and tests for scores of held-out examples. Seeded where chance is used; knows nothing of models.

An interval is None on a side where so few examples say nothing, never a width of zero that looks like certainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
_FEWEST_RESAMPLED = 6
"""Where nothing changed, n differences all point one way with chance 2 ** (1 - n), and then no resample crosses
zero: only from six on is that rarer than the 5% of the cases in which an interval of 95% may be wrong."""
_CELLS_AT_ONCE = 4_000_000
"""Resampled indices held in memory at once, 32 MB of them."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the range that holds its true value with the stated confidence."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def wilson_interval(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the share of successes with its score interval.

    Source: Wilson 1927, without continuity correction.
    """
    low, high = _wilson_limits(successes, trials, confidence)
    return Interval(successes / trials, low, high)


def paired_difference(before: Sequence[bool], after: Sequence[bool], *, confidence: float = CONFIDENCE) -> Interval:
    """Return by how much the share of successes rose, on the same examples.

    A bootstrap of the difference has no width when every example flips or none does; this interval keeps one.
    Source: Newcombe 1998 (Statistics in Medicine 17:2635): Wilson limits joined by squares, with the phi
    coefficient of the pairs; without continuity corrections.
    """
    counts = np.bincount(2 * np.asarray(after, dtype=int) + np.asarray(before, dtype=int), minlength=4)
    neither, lost, gained, both = (int(count) for count in counts)
    trials = neither + lost + gained + both
    old, new = both + lost, both + gained
    old_low, old_high = _wilson_limits(old, trials, confidence)
    new_low, new_high = _wilson_limits(new, trials, confidence)
    margins = old * (trials - old) * new * (trials - new)
    phi = (both * neither - lost * gained) / math.sqrt(margins) if margins else 0.0
    old_share, new_share = old / trials, new / trials
    below = _joined(new_share - new_low, old_high - old_share, phi)
    above = _joined(new_high - new_share, old_share - old_low, phi)
    return Interval(new_share - old_share, new_share - old_share - below, new_share - old_share + above)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value that flips in both directions are equally likely.

    Source: McNemar 1947, as the binomial test on the discordant pairs.
    """
    flips, fewer = gained + lost, min(gained, lost)
    if flips == 0:
        return 1.0
    log_half = flips * math.log(2)
    terms = (
        math.exp(math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1) - log_half)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * math.fsum(terms))


def bootstrap_mean(
    sums: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return sum(sums) / sum(weights) with the percentile bootstrap over examples.

    ``sums`` [examples] and ``weights`` [examples] belong together: loss summed over an example's tokens and its
    number of tokens give the loss per token. Without weights it is the plain mean. For a paired difference, pass
    the differences. With fewer than six examples there is no interval.
    Source: Efron 1979.
    """
    values = np.asarray(sums, dtype=np.float64)
    share = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(values) == 0 or len(values) != len(share) or not share.sum() > 0:
        raise ValueError(f"needs examples and a weight for each; got {len(values)} and {len(share)}")
    value = float(values.sum() / share.sum())
    if len(values) < _FEWEST_RESAMPLED:
        return Interval(value, None, None)
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // len(values))
    means = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = random.integers(len(values), size=(rows, len(values)))  # [resamples, examples]
        means.append(values[drawn].sum(axis=1) / share[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def bootstrap_mean_of_groups(
    groups: Sequence[Sequence[float] | NDArray[np.float64]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean of the groups' means with a percentile bootstrap that draws anew within each group.

    The groups (tasks) are what was asked about, not a sample of groups, so they stay. For a paired difference, pass
    the differences. With a group of fewer than six there is no interval.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or not all(len(array) for array in arrays):
        raise ValueError(f"needs groups with an example each at least; got {[len(array) for array in arrays]}")
    value = float(np.mean([array.mean() for array in arrays]))
    if min(len(array) for array in arrays) < _FEWEST_RESAMPLED:
        return Interval(value, None, None)
    random = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for array in arrays:
        at_once = max(1, _CELLS_AT_ONCE // len(array))
        for start in range(0, resamples, at_once):
            rows = slice(start, min(start + at_once, resamples))
            drawn = random.integers(len(array), size=(rows.stop - rows.start, len(array)))
            total[rows] += array[drawn].mean(axis=1)
    low, high = np.quantile(total / len(arrays), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def _wilson_limits(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"successes must be in 0..trials and trials above 0; got {successes} of {trials}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At the ends the limit is exact; rounding would put it a hair off.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half


def _joined(one: float, other: float, phi: float) -> float:
    """The distance of a difference's limit from the two distances that make it up."""
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))
