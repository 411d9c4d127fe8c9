"""How often a model finds the better answer of a held-out pair likelier than the worse one, and by how much. Knows
nothing of objectives: the figures mean the same for every model, before and after.

Likelihood is per token, so that a longer answer is not the unlikelier for its length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from terakoya.evaluation.heldout import HeldoutScores, Progress
from terakoya.evaluation.likelihood import row_losses
from terakoya.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    mcnemar_p,
    paired_difference,
    wilson_interval,
)
from terakoya.models.packing import Row, label_count


def with_worse_answers(
    scores: HeldoutScores, module: nn.Module, worse: Sequence[Row], *, progress: Progress | None = None
) -> HeldoutScores:
    """Add the losses of the worse answers, in the order of the better ones that were scored, where there are pairs."""
    if not worse:
        return scores
    losses = row_losses(module, worse, of="held-out pairs", progress=progress)
    return replace(scores, worse_loss_sums=losses, worse_label_counts=[*map(label_count, worse)])


def preference_figures(before: HeldoutScores, after: HeldoutScores, *, seed: int) -> dict[str, Any]:
    """Return what a report says of pairs, as Intervals.

    ``preference_accuracy``: share of pairs whose better answer is likelier; ``preference_margin``: by how much, in
    nats per token; each {before, after, difference}. ``preference_p``: that flips in both directions are equally
    likely. ``moved_right``: share of pairs whose whole margin rose: DPO's reward accuracy.
    """
    margins = [_margins(scores) for scores in (before, after)]
    right = [[margin > 0 for margin in side] for side in margins]
    changes = [new - old for old, new in zip(*margins, strict=True)]
    ones = [1] * len(changes)
    gained = sum(new and not old for old, new in zip(*right, strict=True))
    lost = sum(old and not new for old, new in zip(*right, strict=True))
    rises = [
        (after.worse_loss_sums[n] - after.loss_sums[n]) > (before.worse_loss_sums[n] - before.loss_sums[n])
        for n in range(len(changes))
    ]
    return {
        "preference_accuracy": {
            "before": wilson_interval(sum(right[0]), len(changes)),
            "after": wilson_interval(sum(right[1]), len(changes)),
            "difference": paired_difference(*right),
        },
        "preference_margin": {
            "before": bootstrap_mean(margins[0], ones, seed=seed),
            "after": bootstrap_mean(margins[1], ones, seed=seed),
            "difference": bootstrap_mean(changes, ones, seed=seed),
        },
        "preference_p": mcnemar_p(gained, lost),
        "moved_right": wilson_interval(sum(rises), len(changes)),
    }


def to_json(figures: dict[str, Any]) -> dict[str, Any]:
    """The same with plain numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, Interval):
            return value.to_json()
        return {side: plain(each) for side, each in value.items()} if isinstance(value, dict) else value

    return {name: plain(value) for name, value in figures.items()}


def _margins(scores: HeldoutScores) -> list[float]:
    """Of each pair: log-probability per token of the better answer less that of the worse one."""
    better = [-total / count for total, count in zip(scores.loss_sums, scores.label_counts, strict=True)]
    worse = [-total / count for total, count in zip(scores.worse_loss_sums, scores.worse_label_counts, strict=True)]
    return [one - other for one, other in zip(better, worse, strict=True)]
