"""The coefficients of abstention and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from terakoya.domain.documents import Language


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    intercept: float
    weights: Mapping[str, tuple[float, float, float]]
    """Feature -> weight, and the mean and standard deviation it is standardised by."""
    threshold: float
    """Probability that 90% of the answerable questions reach."""


JAPANESE = Table("ja", 0.0, {"rare_coverage": (1.0, 0.5, 0.25)}, 0.3)
ENGLISH = Table("en", 0.0, {"rare_coverage": (1.0, 0.5, 0.25)}, 0.3)
BY_LANGUAGE: Mapping[Language, Table] = {Language.JAPANESE: JAPANESE, Language.ENGLISH: ENGLISH}
"""By the question's language, where the best passage is in the same."""
ACROSS_LANGUAGES = Table("across_languages", 0.0, {"dense_top": (1.0, 0.82, 0.04)}, 0.3)
"""Where it is not, words say nothing."""
