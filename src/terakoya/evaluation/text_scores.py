"""Scores a model on held-out running text: the loss of every token, added up a document. Nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.heldout import HeldoutScores, Progress
from terakoya.exceptions import InvalidDataset, TrainingError
from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import label_count
from terakoya.models.row_likelihood import log_likelihoods


def score_text(
    module: nn.Module, windows: Sequence[EncodedExample], *, progress: Progress | None = None
) -> HeldoutScores:
    """Return one loss a document, in order; nothing is asked, so there are no answers in the scores.

    Windows of one document follow each other. Raises: InvalidDataset without windows; TrainingError if a loss is not
    a finite number.
    """
    if not windows:
        raise InvalidDataset("there is no held-out text to evaluate on")
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            found = log_likelihoods(LabelForward.choose(module, windows[:2]), windows, progress=progress)
    finally:
        module.train(was_training)
    if not all(map(math.isfinite, found)):
        raise TrainingError(
            "the model's loss on held-out text is not a finite number: its weights have diverged; "
            "a lower learning rate would help"
        )
    losses: dict[int, float] = {}
    labels: dict[int, int] = {}
    for window, likelihood in zip(windows, found, strict=True):
        losses[window.row] = losses.get(window.row, 0.0) - likelihood
        labels[window.row] = labels.get(window.row, 0) + label_count(window)
    return HeldoutScores(list(losses.values()), list(labels.values()), [], [], [])
