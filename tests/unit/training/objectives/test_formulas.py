"""Each loss against its formula, computed in double precision by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from terakoya.training.objectives.formulas import dpo_losses, log_odds_ratio

CHOSEN = np.array([0.4, -2.0, 0.0, 30.0, -30.0])
REJECTED = np.array([-0.3, 1.5, 0.0, -30.0, 30.0])


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (0.5, 0.0), (0.3, 0.2)])
def test_dpo_is_minus_log_sigmoid_of_the_margin(beta: float, smoothing: float) -> None:
    margin = beta * (CHOSEN - REJECTED)
    right, wrong = np.log1p(np.exp(-margin)), np.log1p(np.exp(margin))  # -log sigmoid(x) = log(1 + exp(-x))
    expected = (1 - smoothing) * right + smoothing * wrong

    found = dpo_losses(tensor(CHOSEN), tensor(REJECTED), beta=beta, label_smoothing=smoothing)

    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_dpo_pulls_both_answers_apart_by_beta_times_how_wrong_it_is() -> None:
    chosen, rejected = tensor(CHOSEN).requires_grad_(), tensor(REJECTED).requires_grad_()
    dpo_losses(chosen, rejected, beta=0.5).sum().backward()
    pull = 0.5 / (1 + np.exp(0.5 * (CHOSEN - REJECTED)))  # eq. 7's gradient: beta * sigmoid(-margin)
    np.testing.assert_allclose(chosen.grad, -pull, rtol=1e-5)
    np.testing.assert_allclose(rejected.grad, pull, rtol=1e-5)


LIKELIHOODS = np.array([-5.0, -0.7, -0.69, -0.1, -1e-3, -1e-6, -20.0])


def test_the_log_odds_ratio_is_that_of_the_odds() -> None:
    chosen, rejected = LIKELIHOODS, LIKELIHOODS[::-1].copy()
    odds = [np.exp(side) / -np.expm1(side) for side in (chosen, rejected)]

    found = log_odds_ratio(tensor(chosen), tensor(rejected))

    # float32 holds 1 - p of p near 1 to few digits; the formula must not lose more than that.
    np.testing.assert_allclose(found.numpy(), np.log(odds[0] / odds[1]), rtol=2e-6, atol=2e-6)


def test_certain_answers_have_finite_odds_and_gradients() -> None:
    chosen = torch.tensor([0.0, -1.0], requires_grad=True)
    ratios = log_odds_ratio(chosen, torch.tensor([-1.0, 0.0]))
    ratios.sum().backward()
    assert torch.isfinite(ratios).all()
    assert torch.isfinite(chosen.grad).all()
