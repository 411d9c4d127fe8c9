"""After which steps held-out rows are scored while a run trains, and how many of them. Pure: the answer depends on
the plan and on lengths alone, so a resumed run looks at the same moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from terakoya.training.defaults import ResolvedTraining
from terakoya.training.engine.batching import StepPlan

SHARE = 0.035
"""Of the training's computing that evaluations by default may add; samples have a share of their own."""
_FORWARD = 0.5
"""Computing of a scored token against a trained one: 1/3 where all weights are trained, 1/2 beside frozen ones."""
_TIMES = 10
_MOST_ROWS = 128
_FEWEST_ROWS = 8
"""A loss of fewer rows says too little to be worth a look."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    every: int
    """Steps from one evaluation to the next; 0 means that there is none."""
    rows: tuple[int, ...]
    """Which held-out rows are scored."""
    total_steps: int
    share: float
    """Computing that is added, estimated, as a share of the training's."""

    def is_due(self, step: int) -> bool:
        return self.every > 0 and step > 0 and (step % self.every == 0 or step == self.total_steps)

    @property
    def times(self) -> int:
        return math.ceil(self.total_steps / self.every) if self.every else 0


def plan_evaluation(
    resolved: ResolvedTraining, plan: StepPlan, train_lengths: Sequence[int], heldout_lengths: Sequence[int]
) -> EvaluationPlan:
    """Take what was asked for; what was left open is chosen so that it adds at most ``SHARE`` to the computing.

    With neither an interval nor early stopping asked for, a run that is too short for that has no evaluation.
    """
    if not heldout_lengths:
        return EvaluationPlan(0, (), plan.total_steps, 0.0)
    row = sum(heldout_lengths) / len(heldout_lengths)
    trained = plan.total_steps * plan.batch_size * sum(train_lengths) / plan.rows  # of a pair both rows
    affordable = int(SHARE * trained / (_FORWARD * row))  # rows scored in the whole run
    fewest = min(_FEWEST_ROWS, len(heldout_lengths))
    every = _asked_interval(resolved, plan.total_steps)
    if every is None:
        rows = resolved.during_examples or fewest
        times = min(_TIMES, affordable // rows)
        if resolved.early_stopping_patience is not None:
            times = max(times, min(_TIMES, plan.total_steps))
        if times == 0:
            return EvaluationPlan(0, (), plan.total_steps, 0.0)
        every = math.ceil(plan.total_steps / times)
    times = math.ceil(plan.total_steps / every)
    count = resolved.during_examples or min(max(affordable // times, fewest), _MOST_ROWS)
    chosen = spread(len(heldout_lengths), count)
    added = times * sum(heldout_lengths[each] for each in chosen) * _FORWARD / trained
    return EvaluationPlan(every, chosen, plan.total_steps, added)


def _asked_interval(resolved: ResolvedTraining, total_steps: int) -> int | None:
    if resolved.evaluate_every_fraction is not None:
        return max(1, round(resolved.evaluate_every_fraction * total_steps))
    return resolved.evaluate_every_steps


def spread(of: int, count: int) -> tuple[int, ...]:
    """Return ``count`` positions evenly over ``of``, all of them if there are no more: a file is often sorted."""
    count = min(of, count)
    return tuple(number * of // count for number in range(count))
