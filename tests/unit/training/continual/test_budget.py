"""Calibration where the answer is known, and a controller that keeps within a budget."""

from __future__ import annotations

import math

import pytest
import torch

from terakoya.exceptions import InvalidConfig, TrainingError
from terakoya.training.continual.budget import Controller, Probe, calibrated_strength, kl_from


@pytest.mark.parametrize("misfit", [1.0, 12.0, 300.0])
@pytest.mark.parametrize("budget", [0.01, 0.3])
def test_the_calibrated_lambda_uses_up_the_budget_and_no_more(misfit: float, budget: float) -> None:
    """A task that pulls with slope g, a KL of misfit * S w^2 / 2: the minimum with lambda costs the budget."""
    slope, importance = 0.7, 2.5
    moved = 0.2  # by the probe
    predicted = importance * moved**2 / 2
    probe = Probe(measured_kl=misfit * predicted, predicted_kl=predicted, task_gain=slope * moved)
    strength = calibrated_strength(probe, budget)
    resting = slope / (strength * importance)  # where slope = lambda * S * w
    assert misfit * importance * resting**2 / 2 == pytest.approx(budget, rel=1e-12)


def test_a_diagonal_that_predicts_too_little_asks_for_a_larger_lambda() -> None:
    right = calibrated_strength(Probe(0.001, 0.001, 0.5), 0.1)
    wrong = calibrated_strength(Probe(0.1, 0.001, 0.5), 0.1)
    assert wrong == pytest.approx(10 * right)


@pytest.mark.parametrize("budget", [0.0, -0.1, math.inf, math.nan])
def test_a_budget_of_zero_or_below_is_refused(budget: float) -> None:
    with pytest.raises(InvalidConfig, match="above 0"):
        calibrated_strength(Probe(0.1, 0.01, 0.5), budget)


@pytest.mark.parametrize("probe", [Probe(0.0, 0.01, 0.5), Probe(0.1, 0.0, 0.5), Probe(math.nan, 0.1, 0.5)])
def test_a_probe_that_moved_nothing_calibrates_nothing(probe: Probe) -> None:
    with pytest.raises(TrainingError, match="fixed lambda"):
        calibrated_strength(probe, 0.1)
    with pytest.raises(TrainingError, match="did not fall"):
        calibrated_strength(Probe(0.1, 0.01, -0.2), 0.1)


def test_steering_brings_the_cost_to_the_budget_when_the_calibration_was_off() -> None:
    """The true resting cost is c / lambda^2, with c a hundred times what the probe said."""
    budget = 0.1
    control = Controller.of(Probe(0.02, 0.002, 0.5), budget)
    constant = 100 * budget * control.calibrated**2
    costs = [constant / control.after_measurement(constant / control.strength**2) ** 2 for _ in range(4)]
    assert costs[-1] == pytest.approx(budget)
    assert control.strength == pytest.approx(10 * control.calibrated)


def test_lambda_falls_slowly_and_only_well_below_the_budget() -> None:
    control = Controller(budget=0.1, calibrated=5.0, strength=5.0)
    assert control.after_measurement(0.08) == 5.0
    assert control.after_measurement(0.01) == pytest.approx(4.0)
    assert control.after_measurement(100.0) == pytest.approx(16.0)
    for _ in range(200):
        control.after_measurement(0.0)
    assert control.strength == pytest.approx(5.0 / 1e4)


def test_a_kl_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(TrainingError, match="nan"):
        Controller(0.1, 1.0, 1.0).after_measurement(math.nan)


def test_kl_is_zero_for_the_same_answers_and_positive_otherwise() -> None:
    torch.manual_seed(0)
    before, now = torch.randn(4, 7), torch.randn(4, 7)
    torch.testing.assert_close(kl_from(before, before + 3), torch.zeros(4), atol=1e-6, rtol=0)
    assert bool((kl_from(before, now) > 0).all())
    expected = torch.nn.functional.kl_div(now.log_softmax(-1), before.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(kl_from(before, now), expected)
