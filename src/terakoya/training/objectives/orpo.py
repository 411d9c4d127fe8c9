"""Odds ratio preference optimisation: the better answer is learned, and its odds are raised over the worse one's.
Needs no reference model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch.nn.functional import logsigmoid

from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import Row, label_count
from terakoya.models.row_likelihood import row_sums
from terakoya.training.objectives.dpo import means
from terakoya.training.objectives.encodings import PAIRS, Encoding
from terakoya.training.objectives.formulas import log_odds_ratio
from terakoya.training.objectives.objective import MicroBatch, Objective, Share, StepSize


class ORPOObjective(Objective):
    """An example is two rows: the better answer, then the worse one.

    Source: Hong et al. 2024, eq. 6 and 7: the supervised loss of the better answer plus lambda, here ``beta``, times
    the odds ratio loss. As everywhere here the supervised part is the mean over all labels of the step.
    """

    encoding: ClassVar[Encoding] = PAIRS

    def count_labels(self, example: Sequence[Row]) -> int:
        return label_count(example[0])

    def share(self, forward: LabelForward, batch: MicroBatch, size: StepSize) -> Share:
        rows = batch.rows
        sums = row_sums(forward.losses(rows), rows).view(-1, 2)  # [pairs, better and worse]
        labels = sums.new_tensor([[label_count(row) for row in example] for example in batch.examples])
        chosen, rejected = (-sums / labels).unbind(1)
        ratios = log_odds_ratio(chosen, rejected)
        supervised = sums[:, 0].sum() / size.labels
        preference = -logsigmoid(ratios).sum() / size.examples
        facts = {"log_odds_ratio": ratios, "preference_accuracy": (chosen > rejected).float()}
        told = {"supervised_loss": supervised.detach(), "preference_loss": preference.detach(), **means(facts, size)}
        return Share(supervised + self.settings["beta"] * preference, told)
