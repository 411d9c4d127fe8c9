from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from tests.unit.rag.core.conftest import HANDBOOK, REGULATIONS

from terakoya.domain.documents import Hit, Language
from terakoya.rag.core.abstention import decide, features_of, probability
from terakoya.rag.core.abstention_table import ACROSS_LANGUAGES, WITHIN_LANGUAGE, Table
from terakoya.rag.retrieval.analysis import terms_of

QUESTION = "Within how many days may lamps be returned?"


@pytest.mark.parametrize("table", [WITHIN_LANGUAGE, ACROSS_LANGUAGES])
def test_every_table_weighs_features_that_there_are(table: Table, hit_of: Callable[..., Hit]) -> None:
    features = features_of(QUESTION, terms_of(QUESTION), [hit_of(HANDBOOK)], passages=1)
    assert table.weights.keys() <= features.keys()
    assert all(math.isfinite(value) for value in features.values())
    assert 0 < table.threshold < 1
    assert 0 < probability(features, table) < 1


def test_the_probability_is_the_logistic_function_of_standardised_features() -> None:
    table = Table("made", 0.5, {"coverage": (2.0, 0.4, 0.2)}, 0.3)
    assert probability({"coverage": 0.6}, table) == pytest.approx(1 / (1 + math.exp(-2.5)))
    assert probability({"coverage": 1e9}, table) == pytest.approx(1.0)


def test_a_passage_that_fits_is_more_probable_than_one_that_does_not(hit_of: Callable[..., Hit]) -> None:
    fits = hit_of(HANDBOOK, dense=(0.92, 1), sparse=(14.0, 1))
    other = hit_of("The pool opens at seven.", document_id="document_2", dense=(0.80, 2), sparse=(1.0, 2))
    terms = terms_of(QUESTION)
    good = decide(QUESTION, Language.ENGLISH, terms, [fits, other], passages=40)
    bad = decide(
        "Who won the chess match?", Language.ENGLISH, terms_of("Who won the chess match?"), [other], passages=40
    )
    assert good.is_answerable
    assert not bad.is_answerable
    assert good.probability > bad.probability


def test_numbers_of_the_question_are_looked_for_in_the_passages(hit_of: Callable[..., Hit]) -> None:
    def numbers(question: str) -> float:
        return features_of(question, terms_of(question), [hit_of(HANDBOOK)], passages=9)["numbers"]

    assert numbers("Is it 21 days or 90 days?") == 0.5
    assert numbers("Is it 21 days?") == numbers("Is it long?") == 1.0


def test_across_languages_only_the_embedder_is_asked(hit_of: Callable[..., Hit]) -> None:
    decision = decide(
        "有給休暇は何日ですか", Language.JAPANESE, terms_of("有給休暇は何日ですか"), [hit_of(HANDBOOK)], passages=9
    )
    assert decision.table == ACROSS_LANGUAGES.name
    own = decide(
        "有給休暇は何日ですか", Language.JAPANESE, terms_of("有給休暇は何日ですか"), [hit_of(REGULATIONS)], passages=9
    )
    assert own.table == WITHIN_LANGUAGE.name


def test_without_hits_there_is_no_answer() -> None:
    decision = decide(QUESTION, Language.ENGLISH, terms_of(QUESTION), [], passages=0)
    assert (decision.probability, decision.is_answerable) == (0.0, False)
