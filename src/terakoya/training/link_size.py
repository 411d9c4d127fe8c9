"""How many bytes a run's link in its chain will take: importance of weights, and the rows it keeps. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

from terakoya.training.defaults import ResolvedTraining

_STORED_IMPORTANCE = 4
_ID_AS_TEXT = 7
"""A token in a line of JSON."""
_SOFT_ENTRY, _SOFT_LABEL = 8, 4
"""A likely token with its log-probability; the rest's."""
_SCORED_ROW = 60
"""A held-out row's scores in the metrics, as text, over the models it is scored under."""


@dataclass(frozen=True, slots=True)
class RowTotals:
    """Of the training rows, or of the held-out ones."""

    rows: int
    tokens: int
    labels: int


def link_bytes(
    resolved: ResolvedTraining, trained_parameters: int, *, train: RowTotals | None, heldout: RowTotals | None
) -> int:
    """Return what a link takes at most by these rows; 0 for a run in no chain. Unknown rows count as none.

    A diagonal has one number a trained weight; of an adapter's layers only the sums of rows and columns are kept, which
    are as many numbers as a rank of 1 has weights.
    """
    retention = resolved.retention
    if retention is None:
        return 0
    rank = resolved.adapter.rank if resolved.adapter else 1
    size = _STORED_IMPORTANCE * trained_parameters // rank
    if train is not None and train.rows and retention.replay_share:
        soft = (_SOFT_ENTRY * retention.top_k + _SOFT_LABEL) if retention.soft_targets else 0
        kept = retention.replay_share * (_ID_AS_TEXT * train.tokens + soft * train.labels)
        size += min(int(kept), retention.max_replay_bytes)
    if heldout is not None and heldout.rows and retention.heldout_rows:
        share = min(1.0, retention.heldout_rows / heldout.rows)
        kept = share * (2 * _ID_AS_TEXT * heldout.tokens + _SCORED_ROW * heldout.rows)
        size += min(int(kept), retention.max_replay_bytes)
    return size
