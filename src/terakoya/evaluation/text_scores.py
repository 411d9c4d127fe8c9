"""Scores a model on held-out running text: the loss of every token, added up a document. Nothing is generated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.heldout import HeldoutScores, Progress
from terakoya.evaluation.likelihood import row_losses
from terakoya.exceptions import InvalidDataset
from terakoya.models.packing import label_count


def score_text(
    module: nn.Module, windows: Sequence[EncodedExample], *, progress: Progress | None = None
) -> HeldoutScores:
    """Return one loss a document, in order; nothing is asked, so there are no answers in the scores.

    Windows of one document follow each other. Raises: InvalidDataset without windows; TrainingError if a loss is not
    a finite number.
    """
    if not windows:
        raise InvalidDataset("there is no held-out text to evaluate on")
    found = row_losses(module, windows, of="held-out text", progress=progress)
    losses: dict[int, float] = {}
    labels: dict[int, int] = {}
    for window, loss in zip(windows, found, strict=True):
        losses[window.row] = losses.get(window.row, 0.0) + loss
        labels[window.row] = labels.get(window.row, 0) + label_count(window)
    return HeldoutScores(list(losses.values()), list(labels.values()), [], [], [])
