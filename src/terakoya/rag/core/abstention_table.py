"""The coefficients of abstention, as ``benchmarks/abstention.py`` prints them: from JSQuAD's questions and SciFact's
claims together, each in collections of about 12, 40, 300 and all passages, with and without what answers them.
``ACROSS_LANGUAGES`` is for a best passage in another language than the question's, where words say nothing.
"""

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
    """Probability that 90% of JSQuAD's answerable questions reach."""


WITHIN_LANGUAGE = Table(
    "within_language",
    0.2793,
    {
        "dense_top": (0.5383, 0.8751, 0.0343),
        "dense_gap_2": (0.2777, 0.0209, 0.0222),
        "dense_gap_10": (-0.6757, 0.0502, 0.0341),
        "sparse_top": (0.8354, 0.4783, 0.2622),
        "sparse_gap_2": (0.2529, 0.3261, 0.2557),
        "sparse_gap_10": (-0.1613, 0.6314, 0.2238),
        "coverage": (-0.0291, 0.5925, 0.2463),
        "rare_coverage": (1.1170, 0.4333, 0.2814),
        "numbers": (0.1000, 0.9358, 0.2325),
        "agreement": (0.3930, 0.5635, 0.4959),
        "size": (-0.4378, 5.4836, 1.8559),
    },
    0.461,
)
ACROSS_LANGUAGES = Table(
    "across_languages",
    0.1570,
    {
        "dense_top": (0.8338, 0.8751, 0.0343),
        "dense_gap_2": (1.0711, 0.0209, 0.0222),
        "dense_gap_10": (-0.1865, 0.0502, 0.0341),
    },
    0.278,
)
