"""A forgetting budget instead of a lambda: how strong a penalty has to be so that earlier examples lose no more than a
person allows. Arithmetic only; what is measured is handed in.

All losses here are in nats, for one and the same unit (a label, say); the budget too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from terakoya.exceptions import InvalidConfig, TrainingError

_RISE = 4.0
"""A measurement over the budget multiplies lambda by this at most."""
_FALL = 0.8
"""One well below it, by this at least: slowly, since what is forgotten later is not yet to be seen."""
_WELL_BELOW = 0.5
_REACH = 1e4
"""Lambda stays within this factor of the calibrated one, so that noise cannot run away with it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What some steps without a penalty did."""

    measured_kl: float
    """Mean KL(before || after) on canaries."""
    predicted_kl: float
    """1/2 sum S_i (theta_i - theta*_i)^2: what the importance says it should have been."""
    task_gain: float
    """By how much the new task's loss fell."""

    @property
    def misfit(self) -> float:
        """How many times more was forgotten than predicted: the off-diagonal terms that a diagonal leaves out."""
        return self.measured_kl / self.predicted_kl


def calibrated_strength(probe: Probe, budget: float) -> float:
    """Return the lambda at which the new task's pull and the penalty balance where the budget is used up.

    Along the probe's direction, at a times its length, the task's loss is taken to fall by a * gain, the earlier
    tasks' to rise by a^2 * measured, and the penalty is lambda * a^2 * predicted. The budget is used up at
    a = sqrt(budget / measured); there gain = 2 lambda a predicted, so
    lambda = gain * misfit / (2 sqrt(budget * measured)).
    Raises: InvalidConfig for a budget of zero or below; TrainingError for a probe that moved nothing.
    """
    check_budget(budget)
    if not (probe.predicted_kl > 0 and probe.measured_kl > 0 and math.isfinite(probe.misfit)):
        raise TrainingError(
            f"the probe steps changed nothing that could be measured (KL {probe.measured_kl:g}, predicted "
            f"{probe.predicted_kl:g}); take more of them, or give a fixed lambda"
        )
    if probe.task_gain <= 0:
        raise TrainingError(
            f"the new task's loss did not fall over the probe steps (by {probe.task_gain:g}); take more of them, "
            "or give a fixed lambda"
        )
    return probe.task_gain * probe.misfit / (2 * math.sqrt(budget * probe.measured_kl))


def check_budget(budget: float) -> None:
    if not (budget > 0 and math.isfinite(budget)):
        raise InvalidConfig(
            f"a forgetting budget is a loss rise above 0 nats that is acceptable; got {budget!r}. "
            "To allow nothing at all, do not train"
        )


@dataclass(slots=True)
class Controller:
    """Steers lambda by what canaries show. A fixed lambda is a run without one.

    In the calibration's model the KL at the end falls as 1 / lambda^2, so a measurement m over budget b asks for
    lambda * sqrt(m / b). Up at once, by at most 4; down by a fifth, and only below half the budget.
    """

    budget: float
    calibrated: float
    strength: float

    @classmethod
    def of(cls, probe: Probe, budget: float) -> Controller:
        strength = calibrated_strength(probe, budget)
        return cls(budget, strength, strength)

    def after_measurement(self, kl: float) -> float:
        """Take up a measurement and return the lambda to go on with."""
        if not math.isfinite(kl):
            raise TrainingError(f"the loss on earlier examples became {kl}; the budget cannot be kept")
        if kl > self.budget:
            factor = min(math.sqrt(kl / self.budget), _RISE)
        else:
            factor = _FALL if kl < _WELL_BELOW * self.budget else 1.0
        low, high = self.calibrated / _REACH, self.calibrated * _REACH
        self.strength = min(max(self.strength * factor, low), high)
        return self.strength


def kl_from(reference: Tensor, logits: Tensor) -> Tensor:
    """Return KL(reference || model) of each label, [labels]; ``reference`` is logits of the same shape."""
    before, now = reference.float().log_softmax(-1), logits.float().log_softmax(-1)
    return torch.sum(before.exp() * (before - now), dim=-1)
