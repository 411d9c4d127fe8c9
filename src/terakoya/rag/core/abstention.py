"""Whether the documents hold the answer: features of what was found, and a logistic regression over them. Not a
threshold on one score: scores say little across questions, collections and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from terakoya.domain.documents import Hit, Language, Terms
from terakoya.rag.core.abstention_table import ACROSS_LANGUAGES, WITHIN_LANGUAGE, Table
from terakoya.rag.core.evidence import Rarity
from terakoya.rag.core.quantities import quantities_in, unsupported
from terakoya.rag.indexing.passage_text import indexed_text
from terakoya.rag.retrieval.analysis import language_of, terms_of

_LOOKED_AT = 10
_BEST = 3


@dataclass(frozen=True, slots=True)
class Decision:
    probability: float
    """That the documents hold the answer."""
    threshold: float
    features: dict[str, float]
    table: str
    """Which coefficients decided."""

    @property
    def is_answerable(self) -> bool:
        return self.probability >= self.threshold


def decide(
    query: str,
    language: Language,
    terms: Terms,
    hits: Sequence[Hit],
    *,
    passages: int,
    table: Table = WITHIN_LANGUAGE,
) -> Decision:
    """Judge the hits, best first, of a collection with so many passages. Analyses the best ones: blocks for some
    milliseconds. ``table``: the collection's own, for passages in the question's language.
    """
    if not hits:
        return Decision(0.0, table.threshold, {}, table.name)
    if language_of(hits[0].passage.text) != language:
        table = ACROSS_LANGUAGES
    features = features_of(query, terms, hits, passages=passages)
    return Decision(probability(features, table), table.threshold, features, table.name)


def features_of(query: str, terms: Terms, hits: Sequence[Hit], *, passages: int) -> dict[str, float]:
    """Return the features by name; there is at least one hit."""
    dense = sorted((hit.dense_score for hit in hits if hit.dense_score is not None), reverse=True)
    sparse = sorted((hit.sparse_score for hit in hits if hit.sparse_score is not None), reverse=True)
    texts = [terms_of(indexed_text(hit.title, hit.passage.heading, hit.passage.text)) for hit in hits[:_LOOKED_AT]]
    rarity = Rarity(texts)
    # What one term that a single passage has would score: makes collections of all sizes comparable.
    highest = math.log(1 + (max(passages, 1) - 0.5) / 1.5) * max(len(terms), 1)
    asked = quantities_in(query)
    missing = min(len(unsupported(asked, quantities_in(hit.passage.text))) for hit in hits[:_BEST])
    return {
        "dense_top": _at(dense, 0),
        "dense_gap_2": _at(dense, 0) - _at(dense, 1),
        "dense_gap_10": _at(dense, 0) - _at(dense, _LOOKED_AT - 1),
        "sparse_top": _at(sparse, 0) / highest,
        "sparse_gap_2": _relative_gap(sparse, 1),
        "sparse_gap_10": _relative_gap(sparse, _LOOKED_AT - 1),
        "coverage": max(sum(term in text for term in terms) / max(len(terms), 1) for text in texts[:_BEST]),
        "rare_coverage": max(rarity.coverage(terms, text) for text in texts[:_BEST]),
        "numbers": 1.0 - missing / len(asked) if asked else 1.0,
        "agreement": float(any(hit.dense_rank == 1 and hit.sparse_rank == 1 for hit in hits)),
        "size": math.log(max(passages, 1)),
    }


def probability(features: dict[str, float], table: Table) -> float:
    """Return the logistic function of the weighted, standardised features."""
    total = table.intercept
    for name, (weight, mean, deviation) in table.weights.items():
        total += weight * (features[name] - mean) / deviation
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, total))))


def _at(scores: Sequence[float], place: int) -> float:
    """The score at a rank, the last one where there are fewer."""
    return scores[min(place, len(scores) - 1)] if scores else 0.0


def _relative_gap(scores: Sequence[float], place: int) -> float:
    top = _at(scores, 0)
    return (top - _at(scores, place)) / top if top > 0 else 0.0
