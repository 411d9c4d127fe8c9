"""The loss of held-out rows under a module as it is now: one way for pairs, running text and canaries. Knows neither
what the rows are nor what is made of their losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from terakoya.exceptions import TrainingError
from terakoya.models.evaluating import evaluating
from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import Row
from terakoya.models.row_likelihood import log_likelihoods


def row_losses(
    module: nn.Module,
    rows: Sequence[Row],
    *,
    of: str,
    batch_tokens: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Return the loss of each row's labels, their sum in nats, in the order given; there is one row at least.

    ``of``: what the rows are called in an error; ``progress`` hears (rows done, rows).
    Raises: TrainingError if a loss is not a finite number.
    """
    with evaluating(module), torch.inference_mode():
        forward = LabelForward.choose(module, rows[:2])
        found = log_likelihoods(forward, rows, batch_tokens=batch_tokens, progress=progress)
    if not all(map(math.isfinite, found)):
        raise TrainingError(
            f"the model's loss on {of} is not a finite number: its weights have diverged; "
            "a lower learning rate would help"
        )
    return [-likelihood for likelihood in found]
