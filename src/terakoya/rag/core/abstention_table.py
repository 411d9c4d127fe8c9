"""The coefficients of abstention and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    intercept: float
    weights: Mapping[str, tuple[float, float, float]]
    """Feature -> weight, and the mean and standard deviation it is standardised by."""
    threshold: float
    """Probability that 90% of the answerable questions reach."""


WITHIN_LANGUAGE = Table("within_language", 0.0, {"rare_coverage": (1.0, 0.5, 0.25)}, 0.3)
ACROSS_LANGUAGES = Table("across_languages", 0.0, {"dense_top": (1.0, 0.82, 0.04)}, 0.3)
