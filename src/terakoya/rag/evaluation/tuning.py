"""Chooses how a collection is searched by its person's own questions. The gain that is reported is of questions that
had no part in the choice: each half is judged by what was chosen on the other.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terakoya.domain.document_ports import DocumentRepository
from terakoya.domain.documents import CollectionInfo, Hit, StoreHit
from terakoya.domain.retrieval import Fusion, RetrievalSettings
from terakoya.evaluation.separation import compare_pairs
from terakoya.evaluation.statistics import bootstrap_mean
from terakoya.exceptions import InvalidQuestions
from terakoya.rag.evaluation.figures import rounded, words_of
from terakoya.rag.evaluation.judging import holds_answer, judge_ranks, reaches
from terakoya.rag.evaluation.preparing import Judgeable
from terakoya.rag.retrieval.fusion import fuse
from terakoya.rag.retrieval.retriever import Retriever

FEWEST_QUESTIONS = 20
"""Fewer tell chance from gain in no grid."""
_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_RRF_K = (10, 60)
_CANDIDATES = (20, 50, 100)
_MOST = max(_CANDIDATES)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Rankings:
    """What the two searches found for a question, as far as any setting looks."""

    dense: Sequence[StoreHit]
    sparse: Sequence[StoreHit]
    targets: tuple[frozenset[str], ...]
    """Of each thing that should be found, the passages among those found that are it."""
    half: int


def grid(own: RetrievalSettings) -> list[RetrievalSettings]:
    """Return the settings that are tried, the present one first."""
    ways: list[tuple[Fusion, int]] = [("dbsf", own.rrf_k), ("weighted", own.rrf_k), *(("rrf", k) for k in _RRF_K)]
    tried = [
        RetrievalSettings(fusion, weight, k, candidates)
        for candidates in _CANDIDATES
        for weight in _WEIGHTS
        for fusion, k in ways
    ]
    return list(dict.fromkeys([own, *tried]))


async def rank_all(
    retriever: Retriever,
    documents: DocumentRepository,
    collection: CollectionInfo,
    questions: Sequence[Judgeable],
    progress: Progress,
) -> list[Rankings]:
    """Search once a question. Raises: InvalidQuestions for too few that have an answer; Unavailable."""
    answerable = [one for one in questions if one.question.answerable]
    if len(answerable) < FEWEST_QUESTIONS:
        raise InvalidQuestions(
            f"tuning needs {FEWEST_QUESTIONS} questions that can be judged and have an answer; there are "
            f"{len(answerable)}"
        )
    found = []
    for number, one in enumerate(answerable):
        progress(number, len(answerable))
        dense, sparse = await retriever.rankings(collection, one.question.question, candidates=_MOST)
        found.append(await asyncio.to_thread(_ranked, documents, one, dense, sparse))
    progress(len(answerable), len(answerable))
    return found


def tune(rankings: Sequence[Rankings], own: RetrievalSettings) -> dict[str, Any]:
    """Return the report: what is suggested, and the gain on questions that had no part in choosing it. Blocks for
    some seconds.
    """
    tried = grid(own)
    scores = np.array([[_ndcg(one, settings) for one in rankings] for settings in tried])  # [settings, questions]
    half = np.array([one.half for one in rankings])
    if min((half == side).sum() for side in (0, 1)) == 0:
        half = np.arange(len(rankings)) % 2  # all of one document
    judged = np.empty(len(rankings))
    chosen = []
    for side in (0, 1):
        best = int(np.argmax(scores[:, half != side].mean(axis=1)))  # of equal ones the first, which is the present
        judged[half == side] = scores[best, half == side]
        chosen.append(tried[best].to_json())
    compared = compare_pairs(scores[0].tolist(), judged.tolist())
    suggested = int(np.argmax(scores.mean(axis=1)))
    facts: dict[str, Any] = {
        **compared.to_json(),
        "difference": rounded(compared.difference),
        "p": round(compared.p, 4),
    }
    facts["words"] = words_of(("as it is", "tuned"), "ndcg_at_10", facts)
    return {
        "questions": len(rankings),
        "tried": len(tried),
        "present": own.to_json(),
        "suggested": tried[suggested].to_json(),
        "chosen_on_each_half": chosen,
        "ndcg_at_10": {
            "present": rounded(bootstrap_mean(scores[0].tolist())),
            "tuned_on_the_other_half": rounded(bootstrap_mean(judged.tolist())),
            "suggested_on_the_questions_it_was_chosen_by": rounded(bootstrap_mean(scores[suggested].tolist())),
        },
        "comparison": {"ndcg_at_10": facts},
    }


def _ranked(
    documents: DocumentRepository, one: Judgeable, dense: Sequence[StoreHit], sparse: Sequence[StoreHit]
) -> Rankings:
    passages = documents.passages(list(dict.fromkeys(hit.id for hit in (*dense, *sparse))))
    hits = [Hit(passage, "", 0.0) for passage in passages.values()]
    if one.targets:
        targets = tuple(frozenset(hit.passage.id for hit in hits if reaches(hit, target)) for target in one.targets)
    else:
        targets = (frozenset(hit.passage.id for hit in hits if holds_answer(hit, one.question.answers)),)
    return Rankings(dense, sparse, targets, half_of(one))


def half_of(one: Judgeable) -> int:
    """Questions about one document stay together: its wording is the same in both."""
    key = one.targets[0].places[0].document_id if one.targets else one.question.question
    return hashlib.sha256(key.encode()).digest()[0] % 2


def _ndcg(one: Rankings, settings: RetrievalSettings) -> float:
    fused = fuse(one.dense[: settings.candidates], one.sparse[: settings.candidates], settings)
    ranks: list[int | None] = [None] * len(one.targets)
    for rank, found in enumerate(fused[:10], start=1):
        for place, target in enumerate(one.targets):
            if ranks[place] is None and found.id in target:
                ranks[place] = rank
    return judge_ranks(ranks).ndcg
