from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terakoya.data.lengths import Lengths, truncation_budget


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
def test_a_histogram_counts_every_row_once_in_few_bins_of_one_width(values: list[int]) -> None:
    lengths = Lengths(values)
    bins = lengths.histogram()

    assert len(bins) <= 24
    assert sum(bin.rows for bin in bins) == len(lengths) == len(values)
    assert len({bin.end - bin.start for bin in bins}) == 1
    assert all(bin.rows == sum(bin.start <= value < bin.end for value in values) for bin in bins)
    assert (bins[0].rows > 0, bins[-1].rows > 0) == (True, True)


@given(st.lists(st.integers(0, 1000), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_least_length_that_covers_the_share(values: list[int], share: float) -> None:
    quantile = Lengths(values).quantile(share)

    assert quantile in values
    assert sum(value <= quantile for value in values) >= share * len(values)
    assert sum(value < quantile for value in values) < share * len(values)


def test_nothing_has_no_lengths() -> None:
    assert Lengths().to_json() == {"mean": 0.0, "p50": 0, "p90": 0, "p99": 0, "max": 0, "histogram": []}


def test_a_limit_costs_what_lies_beyond_it() -> None:
    rows = [(10, 10), (10, 40), (50, 60), (5, 95)]

    budget = truncation_budget(rows, 50)

    assert (budget.rows, budget.long_rows, budget.longest) == (4, 2, 110)
    assert budget.answer_length == 205
    assert budget.cut_answer_length == 60 + 50
    assert budget.dropped_answer_length == 60 + 95
    assert budget.cut_share == pytest.approx(110 / 205)
    assert budget.dropped_share == pytest.approx(155 / 205)
    assert budget.pieces == 0  # a prompt of 50 leaves no room for an answer
    assert truncation_budget(rows, 60).pieces == 6 + 2
    assert truncation_budget(rows, 110).long_rows == 0


def test_a_budget_says_what_it_costs_in_a_sentence() -> None:
    assert truncation_budget([(100, 924)] * 99 + [(100, 1024)], 1024).sentence() == (
        "1 row loses 0.1% of answer tokens at 1,024"
    )
    assert truncation_budget([(10, 1100)] * 37 + [(1, 1000)] * 40, 1024).sentence() == (
        "37 rows lose 3.9% of answer tokens at 1,024"
    )
    assert truncation_budget([(1, 1)], 8).sentence("characters") == "no row is longer than 8 characters"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20), st.integers(1, 80))
def test_a_higher_limit_never_costs_more(rows: list[tuple[int, int]], limit: int) -> None:
    lower, higher = truncation_budget(rows, limit), truncation_budget(rows, limit + 1)

    assert higher.cut_answer_length <= lower.cut_answer_length <= lower.dropped_answer_length
    assert higher.dropped_answer_length <= lower.dropped_answer_length
    assert truncation_budget(rows, max(1, lower.longest)).long_rows == 0
