from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from terakoya.evaluation.separation import area_under_curve, bootstrap_quantile, compare_pairs, roc_points


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    drawn = np.random.default_rng(1)
    ours, theirs = drawn.integers(8, size=30).tolist(), drawn.integers(6, size=20).tolist()
    pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in product(ours, theirs)]
    found = area_under_curve(ours, theirs)
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_few_examples_have_a_value_and_no_interval() -> None:
    assert (area_under_curve([0.9], [0.1]).value, area_under_curve([0.9], [0.1]).low) == (1.0, None)
    assert bootstrap_quantile([3.0, 1.0], 0.5).low is None


def test_the_curve_goes_from_everything_to_what_the_highest_threshold_keeps() -> None:
    points = roc_points([0.9, 0.8, 0.4], [0.5, 0.1])
    assert points[0] == {"threshold": 0.1, "kept": 1.0, "let_through": 1.0}
    assert points[-1] == {"threshold": 0.9, "kept": pytest.approx(1 / 3, abs=1e-4), "let_through": 0.0}
    assert len(roc_points(list(range(500)), list(range(500)))) == 50


def test_the_randomisation_test_counts_the_signs_that_go_as_far() -> None:
    first = [0.1, 0.5, 0.2, 0.9, 0.3, 0.4, 0.6, 0.7]
    second = [0.4, 0.6, 0.5, 0.8, 0.7, 0.9, 0.6, 0.9]
    moved = np.array([b - a for a, b in zip(first, second, strict=True) if a != b])
    sums = [abs(np.dot(signs, np.abs(moved))) for signs in product((-1, 1), repeat=len(moved))]
    exact = np.mean([one >= abs(moved.sum()) - 1e-9 for one in sums])
    compared = compare_pairs(first, second)
    assert compared.p == pytest.approx(exact, abs=0.01)  # 20,000 draws: three standard errors
    assert (compared.examples, compared.differing) == (8, 7)
    assert compared.verdict == "better"
    assert compare_pairs(second, first).verdict == "worse"


def test_equal_results_are_no_difference() -> None:
    compared = compare_pairs([0.5] * 20, [0.5] * 20)
    assert (compared.p, compared.differing, compared.verdict) == (1.0, 0, "no_significant_difference")


def test_chance_alone_is_called_significant_as_seldom_as_it_says() -> None:
    drawn = np.random.default_rng(4)
    called = [compare_pairs(drawn.normal(size=25), drawn.normal(size=25)).verdict for _ in range(200)]
    # 5% of 200 are 10; 21 and more would come once in a thousand.
    assert sum(one != "no_significant_difference" for one in called) <= 21
