"""Supervised learning: cross-entropy of the assistant's answers, the mean over all labels of a step."""

from __future__ import annotations

from terakoya.models.label_forward import LabelForward
from terakoya.training.objectives.objective import MicroBatch, Objective, Share, StepSize


class SupervisedObjective(Objective):
    def share(self, forward: LabelForward, batch: MicroBatch, size: StepSize) -> Share:
        return Share(forward.losses(batch.rows).sum() / size.labels)
