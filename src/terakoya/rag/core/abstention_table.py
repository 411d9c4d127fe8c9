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
    0.0232,
    {
        "dense_top": (0.4243, 0.8877, 0.0328),
        "dense_gap_2": (-0.0784, 0.0219, 0.0224),
        "dense_gap_10": (-0.3646, 0.0572, 0.0371),
        "sparse_top": (0.5559, 0.3794, 0.1902),
        "sparse_gap_2": (0.4287, 0.3164, 0.2483),
        "sparse_gap_10": (0.2836, 0.6091, 0.2200),
        "coverage": (1.4857, 0.6767, 0.1996),
        "rare_coverage": (0.3770, 0.4507, 0.2706),
        "numbers": (0.4009, 0.9405, 0.2320),
        "agreement": (0.0830, 0.6152, 0.4866),
        "size": (0.0228, 6.0995, 1.7042),
    },
    0.344,
)
ENGLISH = Table(
    "en",
    0.6582,
    {
        "dense_top": (0.4526, 0.8591, 0.0292),
        "dense_gap_2": (0.6177, 0.0201, 0.0226),
        "dense_gap_10": (0.4134, 0.0419, 0.0280),
        "sparse_top": (1.4462, 0.4553, 0.2847),
        "sparse_gap_2": (0.2712, 0.3430, 0.2660),
        "sparse_gap_10": (-0.1404, 0.6516, 0.2169),
        "coverage": (-0.0896, 0.4971, 0.2214),
        "rare_coverage": (0.3002, 0.3769, 0.2477),
        "numbers": (0.0106, 0.9288, 0.2363),
        "agreement": (0.2232, 0.5135, 0.4998),
        "size": (0.0660, 4.7166, 1.7425),
    },
    0.221,
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
