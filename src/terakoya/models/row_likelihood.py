"""How likely a model finds the labels of whole rows. Knows neither objectives nor reports: both use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from terakoya.models.label_forward import LabelForward
from terakoya.models.length_batches import length_batches
from terakoya.models.packing import Row, label_count


def row_sums(losses: Tensor, rows: Sequence[Row]) -> Tensor:
    """Add up the losses of each row's labels: [labels] -> [rows]."""
    counts = torch.tensor([label_count(row) for row in rows], device=losses.device)
    owner = torch.repeat_interleave(torch.arange(len(rows), device=losses.device), counts)
    return losses.new_zeros(len(rows)).index_add(0, owner, losses)


def log_likelihoods(
    forward: LabelForward,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Return each row's log-probability of its labels, their sum in nats, in the order given.

    ``progress`` hears (rows done, rows). To be called in evaluation and inference mode.
    """
    found = [0.0] * len(rows)
    done = 0
    for batch in length_batches([len(row.input_ids) for row in rows], batch_tokens):
        chosen = [rows[index] for index in batch]
        for index, loss in zip(batch, row_sums(forward.losses(chosen), chosen).tolist(), strict=True):
            found[index] = -loss
        done += len(batch)
        if progress is not None:
            progress(done, len(rows))
    return found
