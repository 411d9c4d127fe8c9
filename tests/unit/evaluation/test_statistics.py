from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from terakoya.evaluation import statistics
from terakoya.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_mean_of_groups,
    mcnemar_p,
    paired_difference,
    wilson_interval,
)

Z = NormalDist().inv_cdf(0.975)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (10, 20, 0.2993, 0.7007),  # (p + z2/2n -+ z sqrt(...)) / (1 + z2/n) by hand
        (0, 10, 0.0, Z**2 / (10 + Z**2)),  # the closed form at the end
        (10, 10, 10 / (10 + Z**2), 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998 (17:857), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_values(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, trials)

    assert interval.value == successes / trials
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


def test_paired_difference_agrees_with_the_published_value() -> None:
    # Newcombe 1998 (17:2635), the table 36, 12, 2, 0: difference 0.2, interval 0.0569 to 0.3404.
    after = [True] * 48 + [False] * 2
    before = [True] * 36 + [False] * 12 + [True] * 2

    interval = paired_difference(before, after)

    assert interval.value == pytest.approx(0.2)
    assert (interval.low, interval.high) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))


def test_paired_difference_is_as_wide_as_its_data_are_few_even_when_every_answer_flips() -> None:
    few, many = (paired_difference([False] * n, [True] * n) for n in (3, 300))

    assert few.value == many.value == few.high == many.high == 1
    assert few.low is not None
    assert many.low is not None
    assert few.low < 0.3
    assert many.low > 0.98


def test_paired_difference_turns_around_with_its_sides() -> None:
    before, after = [True, False, True, True, False, False], [True, True, False, True, True, True]

    there, back = paired_difference(before, after), paired_difference(after, before)

    assert back.low is not None
    assert back.high is not None
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (10, 0, 2 / 2**10), (1, 9, 22 / 2**10)]
)
def test_mcnemar_is_the_binomial_test(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == mcnemar_p(lost, gained) == pytest.approx(p)


def test_mcnemar_of_very_many_flips_does_not_overflow() -> None:
    assert 0 <= mcnemar_p(50_000, 0) < 1e-300
    assert mcnemar_p(50_000, 50_000) == pytest.approx(1.0)


def test_the_bootstrap_of_a_mean_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=400)
    half = Z * values.std() / math.sqrt(len(values))

    interval = bootstrap_mean(values.tolist())

    assert interval.value == pytest.approx(values.mean())
    # Three per cent: the quantiles of 10,000 resamples are themselves uncertain by about one.
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03 * 2 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03 * 2 * half)


def test_weights_give_the_mean_per_token_with_the_error_of_a_ratio() -> None:
    random = np.random.default_rng(2)
    tokens = random.integers(1, 20, size=500)
    sums = tokens * 1.5 + random.normal(size=500) * tokens
    ratio = sums.sum() / tokens.sum()
    error = math.sqrt(((sums - ratio * tokens) ** 2).sum()) / tokens.sum()  # the delta method

    interval = bootstrap_mean(sums.tolist(), tokens.tolist())

    assert interval.value == pytest.approx(ratio)
    assert interval.low == pytest.approx(ratio - Z * error, abs=0.05 * 2 * Z * error)
    assert interval.high == pytest.approx(ratio + Z * error, abs=0.05 * 2 * Z * error)


def test_the_bootstrap_follows_its_seed_and_not_the_memory_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [math.sqrt(n) for n in range(50)]
    whole = bootstrap_mean(values, seed=5)
    monkeypatch.setattr(statistics, "_CELLS_AT_ONCE", 1000)

    assert bootstrap_mean(values, seed=5) == whole
    assert bootstrap_mean(values, seed=6) != whole


def test_one_example_has_no_interval() -> None:
    interval = bootstrap_mean([2.0], [4.0])

    assert (interval.value, interval.low, interval.high) == (0.5, None, None)
    assert not interval.excludes_zero


def test_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="needs examples"):
        bootstrap_mean([])


@pytest.mark.parametrize(("examples", "has_interval"), [(2, False), (5, False), (6, True)])
def test_a_handful_of_examples_that_all_point_one_way_is_no_evidence(examples: int, has_interval: bool) -> None:
    assert (bootstrap_mean([-1.0 - n for n in range(examples)]).low is not None) is has_interval


def test_the_mean_of_groups_weighs_groups_alike_and_draws_within_them() -> None:
    """Two groups of spread s: the mean of their means has a standard error of sqrt(s1^2/n1 + s2^2/n2) / 2."""
    random = np.random.default_rng(0)
    small, large = random.normal(0, 1, 100), random.normal(10, 2, 400)
    interval = bootstrap_mean_of_groups([small, large])
    assert interval.value == pytest.approx((small.mean() + large.mean()) / 2)
    error = math.sqrt(small.var() / 100 + large.var() / 400) / 2
    assert interval.low == pytest.approx(interval.value - Z * error, abs=0.1 * error)
    assert interval.high == pytest.approx(interval.value + Z * error, abs=0.1 * error)


def test_the_mean_of_groups_needs_six_in_each_for_an_interval_and_one_for_a_value() -> None:
    assert bootstrap_mean_of_groups([[1.0] * 6, [0.0] * 5]).low is None
    assert bootstrap_mean_of_groups([[1.0] * 6, [0.0] * 6]).to_json() == {"value": 0.5, "low": 0.5, "high": 0.5}
    for groups in ([], [[1.0], []]):
        with pytest.raises(ValueError, match="needs groups"):
            bootstrap_mean_of_groups(groups)
