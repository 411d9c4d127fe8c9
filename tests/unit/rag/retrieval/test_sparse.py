from __future__ import annotations

import pytest

from terakoya.rag.retrieval.sparse import passage_vector, query_vector


def test_weights_are_those_of_the_formula() -> None:
    vector = passage_vector({7: 3, 9: 1}, 8.0, k1=1.2, b=0.75)
    # Length 4 of 8 on average: k1 * (.25 + .75 * .5) = .75.
    assert vector.indices == (7, 9)
    assert vector.values == pytest.approx((3 * 2.2 / 3.75, 1 * 2.2 / 1.75))


def test_a_passage_of_average_length_weighs_a_single_term_as_one() -> None:
    assert passage_vector({1: 1, 2: 1}, 2.0).values == pytest.approx((1.0, 1.0))


def test_without_an_average_lengths_do_not_count() -> None:
    assert passage_vector({1: 1}, 0.0) == passage_vector({1: 1}, 1.0)
    assert passage_vector({1: 1, 2: 50}, 0.0).values[0] == pytest.approx(1.0)


def test_what_the_query_says_twice_counts_twice() -> None:
    assert query_vector({1: 1, 2: 2}).values == (1.0, 2.0)


def test_no_terms_give_an_empty_vector() -> None:
    assert passage_vector({}, 10.0).indices == ()
    assert query_vector({}).indices == ()
