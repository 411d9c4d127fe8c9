"""What one ranking is worth for one question: at which rank each target was found, and the figures made of that.
Pure; knows no search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from terakoya.domain.documents import Citation, Hit
from terakoya.rag.evaluation.locating import Place, Target
from terakoya.rag.text_places import squeeze

K = 10
"""Ranks that recall and nDCG look at."""
_SHARE = 0.5
"""Of the expected passage, or of the passage found where that is the shorter, that must be shared."""


@dataclass(frozen=True, slots=True)
class Ranked:
    recall: float
    """Share of the targets among the first ten."""
    ndcg: float
    """Normalised discounted cumulative gain of the first ten; a target counts where it is found first.

    Source: Järvelin and Kekäläinen 2002, with gains of 0 and 1.
    """
    reciprocal_rank: float
    """1 / rank of the first target among all passages that were ranked, 0 if there is none."""
    first_rank: int | None


def reaches(hit: Hit, target: Target) -> bool:
    """Whether the passage is what should be found."""
    passage = hit.passage
    return any(
        place.document_id == passage.document_id and _covers(passage.start, passage.end, place)
        for place in target.places
    )


def holds_answer(hit: Hit, answers: Sequence[str]) -> bool:
    """Whether the passage holds one of the answers; white space and width do not count."""
    return holds(hit.passage.text, answers)


def holds(text: str, answers: Sequence[str]) -> bool:
    plain, _ = squeeze(text)
    return any(squeezed in plain for answer in answers if (squeezed := squeeze(answer)[0]))


def ranks_of(hits: Sequence[Hit], targets: Sequence[Target], answers: Sequence[str]) -> list[int | None]:
    """Return, from 1, where each target is found first. Without targets the answer itself is what should be found."""
    if not targets:
        return [next((rank for rank, hit in enumerate(hits, 1) if holds_answer(hit, answers)), None)]
    return [next((rank for rank, hit in enumerate(hits, 1) if reaches(hit, target)), None) for target in targets]


def judge_ranks(ranks: Sequence[int | None]) -> Ranked:
    """Return the figures of one question; it has a target at least."""
    found = [rank for rank in ranks if rank is not None]
    within = sorted({rank for rank in found if rank <= K})
    # A passage that holds two targets is one passage: no ranking could show them at two ranks.
    possible = len(ranks) - (sum(rank <= K for rank in found) - len(within))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(K, possible) + 1))
    first = min(found, default=None)
    return Ranked(
        recall=sum(rank <= K for rank in found) / len(ranks),
        ndcg=sum(1 / math.log2(rank + 1) for rank in within) / ideal,
        reciprocal_rank=0.0 if first is None else 1 / first,
        first_rank=first,
    )


def without(hits: Sequence[Hit], targets: Sequence[Target], answers: Sequence[str]) -> list[Hit]:
    """Return the hits as if what answers the question were not in the collection, ranked anew."""
    kept = [
        hit
        for hit in hits
        if not any(reaches(hit, target) or _touches(hit, target) for target in targets)
        and not holds_answer(hit, answers)
    ]
    return _ranked_anew(kept)


def supports(citation: Citation, targets: Sequence[Target], answers: Sequence[str]) -> bool:
    """Whether a citation quotes what should be found, or the answer itself."""
    if holds(citation.quote, answers):
        return True
    return any(
        place.document_id == citation.document_id
        and (place.end is None or (citation.start < place.end and place.start < citation.end))
        for target in targets
        for place in target.places
    )


def _covers(start: int, end: int, place: Place) -> bool:
    if place.end is None:
        return True
    shared = min(end, place.end) - max(start, place.start)
    return shared >= _SHARE * min(end - start, place.end - place.start) and shared > 0


def _touches(hit: Hit, target: Target) -> bool:
    passage = hit.passage
    return any(
        place.document_id == passage.document_id
        and (place.end is None or (passage.start < place.end and place.start < passage.end))
        for place in target.places
    )


def _ranked_anew(hits: Sequence[Hit]) -> list[Hit]:
    dense = sorted(hit.dense_rank for hit in hits if hit.dense_rank is not None)
    sparse = sorted(hit.sparse_rank for hit in hits if hit.sparse_rank is not None)
    return [
        replace(
            hit,
            dense_rank=None if hit.dense_rank is None else dense.index(hit.dense_rank) + 1,
            sparse_rank=None if hit.sparse_rank is None else sparse.index(hit.sparse_rank) + 1,
        )
        for hit in hits
    ]
