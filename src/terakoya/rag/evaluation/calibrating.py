"""Calibrates a collection's abstention on a person's questions: each with what answers it, and with that taken out of
what was found. What is told of it is of questions that had no part in the fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from terakoya.domain.documents import CollectionInfo, Hit
from terakoya.evaluation.separation import area_under_curve
from terakoya.evaluation.statistics import wilson_interval
from terakoya.exceptions import InvalidQuestions
from terakoya.rag.core.abstention import features_of, probability
from terakoya.rag.core.calibration import Sample, crossed, fit, table_of, to_json
from terakoya.rag.core.engine import CANDIDATES
from terakoya.rag.evaluation.figures import rounded
from terakoya.rag.evaluation.judging import without
from terakoya.rag.evaluation.preparing import Judgeable
from terakoya.rag.evaluation.tuning import half_of
from terakoya.rag.retrieval.analysis import language_of
from terakoya.rag.retrieval.retriever import Retrieved, Retriever

FEWEST_QUESTIONS = 30
"""That have an answer, or have none: fewer say less than the coefficients that come with Terakoya."""
_FEWEST_OF_A_HALF = 5
Progress = Callable[[int, int], None]


async def collect_samples(
    retriever: Retriever, collection: CollectionInfo, questions: Sequence[Judgeable], progress: Progress
) -> list[Sample]:
    """Search once a question. Raises: InvalidQuestions for too few; Unavailable."""
    samples: list[Sample] = []
    used = 0
    for number, one in enumerate(questions):
        progress(number, len(questions))
        found = await retriever.search(
            collection, one.question.question, limit=CANDIDATES, settings=collection.retrieval
        )
        of_one = await asyncio.to_thread(_samples, one, found, collection)
        samples += of_one
        used += bool(of_one)
    progress(len(questions), len(questions))
    sides = [sum(s.half == half and s.is_answerable == side for s in samples) for half in (0, 1) for side in (0, 1)]
    if used < FEWEST_QUESTIONS or min(sides) < _FEWEST_OF_A_HALF:
        raise InvalidQuestions(
            f"calibration needs {FEWEST_QUESTIONS} questions whose best passage is in their language, about several "
            f"documents; there are {used}"
        )
    return samples


def calibrate(samples: Sequence[Sample], collection: CollectionInfo) -> dict[str, Any]:
    """Return the report, with the coefficients that are suggested. Blocks for a second or so."""
    present = table_of(collection)
    before = [probability(dict(sample.features), present) for sample in samples]
    after, answered = crossed(samples)
    return {
        "samples": len(samples),
        "before": _judged(samples, before, [chance >= present.threshold for chance in before]),
        "fitted_on_the_other_half": _judged(samples, after, answered),
        "coefficients": to_json(fit(samples)),
    }


def _judged(samples: Sequence[Sample], chances: Sequence[float], answered: Sequence[bool]) -> dict[str, Any]:
    held = [chance for sample, chance in zip(samples, chances, strict=True) if sample.is_answerable]
    lacking = [chance for sample, chance in zip(samples, chances, strict=True) if not sample.is_answerable]
    kept = sum(yes for sample, yes in zip(samples, answered, strict=True) if sample.is_answerable)
    let_through = sum(yes for sample, yes in zip(samples, answered, strict=True) if not sample.is_answerable)
    return {
        "auc": rounded(area_under_curve(held, lacking)),
        "kept": rounded(wilson_interval(kept, len(held))),
        "let_through": rounded(wilson_interval(let_through, len(lacking))),
    }


def _samples(one: Judgeable, found: Retrieved, collection: CollectionInfo) -> list[Sample]:
    """Blocks. Passages in another language are judged by coefficients of their own, which stay."""
    half = half_of(one)
    sides: list[tuple[Sequence[Hit], bool]] = [(found.hits, one.question.answerable)]
    if one.question.answerable:
        sides.append((without(found.hits, one.targets, one.question.answers), False))
    return [
        Sample(features_of(found.query, found.terms, hits, passages=collection.passages), is_answerable, half)
        for hits, is_answerable in sides
        if hits and language_of(hits[0].passage.text) == found.language
    ]
