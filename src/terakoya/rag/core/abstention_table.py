"""The coefficients of abstention, as ``benchmarks/abstention.py`` prints them: from JSQuAD's questions for Japanese and
SciFact's claims for English, each in collections of about 12, 40, 300 and all passages, with and without what answers
them. ``ACROSS_LANGUAGES`` is for a best passage in another language than the question's, where words say nothing.
"""

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


JAPANESE = Table(
    "ja",
    0.0255,
    {
        "dense_top": (0.4154, 0.8877, 0.0328),
        "dense_gap_2": (-0.0657, 0.0219, 0.0224),
        "dense_gap_10": (-0.3658, 0.0572, 0.0371),
        "sparse_top": (0.6764, 0.3570, 0.1761),
        "sparse_gap_2": (0.3923, 0.3236, 0.2512),
        "sparse_gap_10": (0.2220, 0.6157, 0.2187),
        "coverage": (1.3271, 0.6769, 0.1994),
        "rare_coverage": (0.4220, 0.4509, 0.2704),
        "numbers": (0.3954, 0.9397, 0.2336),
        "agreement": (0.0949, 0.6127, 0.4871),
        "size": (0.0120, 6.0995, 1.7042),
    },
    0.336,
)
ENGLISH = Table(
    "en",
    0.7168,
    {
        "dense_top": (0.4964, 0.8591, 0.0292),
        "dense_gap_2": (0.5609, 0.0201, 0.0226),
        "dense_gap_10": (0.3278, 0.0419, 0.0280),
        "sparse_top": (1.9484, 0.4341, 0.2737),
        "sparse_gap_2": (0.2085, 0.3447, 0.2652),
        "sparse_gap_10": (-0.1532, 0.6509, 0.2169),
        "coverage": (-0.1799, 0.4973, 0.2215),
        "rare_coverage": (0.1072, 0.3779, 0.2479),
        "numbers": (0.0054, 0.9297, 0.2343),
        "agreement": (0.2362, 0.5158, 0.4998),
        "size": (0.0308, 4.7166, 1.7425),
    },
    0.226,
)
ACROSS_LANGUAGES = Table(
    "across_languages",
    0.2152,
    {
        "dense_top": (0.8493, 0.8770, 0.0344),
        "dense_gap_2": (1.0996, 0.0212, 0.0225),
        "dense_gap_10": (-0.2035, 0.0515, 0.0348),
    },
    0.273,
)
BY_LANGUAGE: Mapping[Language, Table] = {Language.JAPANESE: JAPANESE, Language.ENGLISH: ENGLISH}
"""By the question's language, where the best passage is in the same."""
