"""The losses of preference learning as functions of log-probabilities. Pure: no model, no tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_losses(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss of each pair: [pairs].

    ``chosen``, ``rejected`` [pairs]: log pi(answer) - log pi_ref(answer), each summed over the answer's tokens.

    Source: Rafailov et al. 2023, "Direct Preference Optimization", eq. 7. ``label_smoothing`` is the chance that a
    pair is the wrong way round: the conservative loss of Mitchell 2023, "A note on DPO with noisy preferences", eq. 3.
    """
    margin = beta * (chosen - rejected)
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return log(odds(chosen) / odds(rejected)) of each pair: [pairs].

    ``chosen``, ``rejected`` [pairs]: log-probability of the answer per token, below 0; odds(p) = p / (1 - p).

    Source: Hong et al. 2024, "ORPO: Monolithic Preference Optimization without Reference Model", eq. 3 and 4.
    """
    return (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))


def _log1mexp(value: Tensor) -> Tensor:
    """log(1 - exp(value)) for value < 0, exact at both ends.

    Source: Maechler 2012, "Accurately computing log(1 - exp(-|a|))". A probability that rounds to 1 would have
    infinite odds; the smallest step below it is taken.
    """
    value = value.clamp(max=-(torch.finfo(value.dtype).tiny ** 0.5))
    near = torch.log(-torch.expm1(value.clamp(min=-1.0)))
    far = torch.log1p(-torch.exp(value.clamp(max=-0.5)))
    return torch.where(value > -0.6931, near, far)
