"""Fits abstention to one collection: the coefficients that come with Terakoya are where it starts, and the person's own
questions move them as far as they are many. Pure; knows no search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terakoya.domain.documents import CollectionInfo
from terakoya.rag.core.abstention import probability
from terakoya.rag.core.abstention_table import WITHIN_LANGUAGE, Table

KEPT = 0.9
"""Share of the answerable questions that are to be answered."""
_PULL = 4.0
"""How strongly each coefficient is held where it was: as by a prior of variance 1 / 4. With twenty questions little
moves, with hundreds much."""
_STEPS = 50


@dataclass(frozen=True, slots=True)
class Sample:
    features: Mapping[str, float]
    is_answerable: bool
    half: int


def table_of(collection: CollectionInfo) -> Table:
    """Return the coefficients of a collection: its own, or those that come with Terakoya."""
    stored = collection.abstention
    if stored is None:
        return WITHIN_LANGUAGE
    weights = {name: (float(weight), *WITHIN_LANGUAGE.weights[name][1:]) for name, weight in stored["weights"].items()}
    return Table("of_this_collection", float(stored["intercept"]), weights, float(stored["threshold"]))


def to_json(table: Table) -> dict[str, Any]:
    """Return what a collection keeps; the scale of the features stays the common one."""
    return {
        "intercept": table.intercept,
        "weights": {name: weight for name, (weight, _, _) in table.weights.items()},
        "threshold": table.threshold,
    }


def fit(samples: Sequence[Sample], prior: Table = WITHIN_LANGUAGE) -> Table:
    """Return logistic regression held near ``prior``, by Newton's method; its threshold keeps 90% of these answerable.

    Both sides count the same, however many there are of each. Needs one of each at least.
    """
    names = list(prior.weights)
    start = np.array([*(prior.weights[name][0] for name in names), prior.intercept])
    values = _matrix(samples, names, prior)
    labels = np.array([float(sample.is_answerable) for sample in samples])
    share = np.where(labels == 1, len(labels) / (2 * labels.sum()), len(labels) / (2 * (len(labels) - labels.sum())))
    weights = start.copy()
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(values @ weights, -60, 60)))
        gradient = values.T @ (share * (chance - labels)) + _PULL * (weights - start)
        curvature = (values * (share * chance * (1 - chance))[:, None]).T @ values + _PULL * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    fitted = {name: (float(weights[place]), *prior.weights[name][1:]) for place, name in enumerate(names)}
    table = Table("of_this_collection", float(weights[-1]), fitted, 0.5)
    return replace(table, threshold=threshold_of(samples, table))


def threshold_of(samples: Sequence[Sample], table: Table) -> float:
    """Return the probability that 90% of the answerable ones reach."""
    chances = [probability(dict(sample.features), table) for sample in samples if sample.is_answerable]
    return round(float(np.quantile(chances, 1 - KEPT)), 4)


def crossed(samples: Sequence[Sample]) -> tuple[list[float], list[bool]]:
    """Return each sample's probability and whether it would be answered, by what was fitted on the other half."""
    chances = [0.0] * len(samples)
    answered = [False] * len(samples)
    for half in (0, 1):
        table = fit([sample for sample in samples if sample.half != half])
        for place, sample in enumerate(samples):
            if sample.half == half:
                chances[place] = probability(dict(sample.features), table)
                answered[place] = chances[place] >= table.threshold
    return chances, answered


def _matrix(samples: Sequence[Sample], names: Sequence[str], prior: Table) -> NDArray[np.float64]:
    """[samples, features + 1], standardised as the prior is; the last column is of ones."""
    rows = [
        [(sample.features[name] - prior.weights[name][1]) / prior.weights[name][2] for name in names] + [1.0]
        for sample in samples
    ]
    return np.array(rows)
