from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from terakoya.domain.documents import CollectionInfo
from terakoya.evaluation.separation import area_under_curve
from terakoya.rag.core.abstention import probability
from terakoya.rag.core.abstention_table import WITHIN_LANGUAGE
from terakoya.rag.core.calibration import Sample, crossed, fit, table_of, to_json

COLLECTION = CollectionInfo("coll_1", "shop", "e5", "a" * 64, 8, 9.0, datetime.now(UTC), 1, 40)


def samples(count: int, *, told_by: str) -> list[Sample]:
    """Questions of which one feature alone tells whether they have an answer; the others are noise."""
    drawn = random.Random(count)
    found = []
    for number in range(count):
        is_answerable = number % 2 == 0
        features = {
            name: mean + deviation * drawn.gauss() for name, (_, mean, deviation) in WITHIN_LANGUAGE.weights.items()
        }
        _, mean, deviation = WITHIN_LANGUAGE.weights[told_by]
        features[told_by] = mean + deviation * (drawn.gauss() + (1.5 if is_answerable else -1.5))
        found.append(Sample(features, is_answerable, number // 2 % 2))
    return found


def area(found: list[Sample], chances: list[float]) -> float:
    held = [chance for sample, chance in zip(found, chances, strict=True) if sample.is_answerable]
    lacking = [chance for sample, chance in zip(found, chances, strict=True) if not sample.is_answerable]
    return area_under_curve(held, lacking).value


def test_many_questions_teach_what_tells_in_this_collection() -> None:
    found = samples(400, told_by="coverage")
    before = area(found, [probability(dict(sample.features), WITHIN_LANGUAGE) for sample in found])
    after, answered = crossed(found)
    assert before < 0.6
    assert area(found, after) > 0.9
    held = [yes for sample, yes in zip(found, answered, strict=True) if sample.is_answerable]
    assert 0.83 < sum(held) / len(held) < 0.96  # 90% of 200 within three standard errors


def test_few_questions_move_little() -> None:
    fitted = fit(samples(4, told_by="coverage"))
    for name, (weight, mean, deviation) in WITHIN_LANGUAGE.weights.items():
        assert fitted.weights[name] == (pytest.approx(weight, abs=0.5), mean, deviation)


def test_what_a_collection_keeps_is_what_it_decides_by() -> None:
    fitted = fit(samples(100, told_by="coverage"))
    assert table_of(COLLECTION) is WITHIN_LANGUAGE
    assert table_of(replace(COLLECTION, abstention=to_json(fitted))) == fitted
