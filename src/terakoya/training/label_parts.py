"""Cuts a row with very many labels into rows with some of them each, so that a whole vocabulary's logits of all of its
labels are never in memory at once. Knows rows; not what is asked of their labels.
"""

from __future__ import annotations

from dataclasses import replace

from terakoya.data.tokenization import EncodedExample
from terakoya.models.label_forward import LABELS_AT_ONCE


def label_parts(row: EncodedExample, most: int = LABELS_AT_ONCE) -> list[EncodedExample]:
    """Return the row with at most so many of its labels at a time, each up to its last label; all labels in order."""
    positions = [position for start, end in row.label_spans for position in range(start, end)]
    parts = []
    for first in range(0, len(positions), most):
        chosen = positions[first : first + most]
        spans: list[tuple[int, int]] = []
        for position in chosen:
            if spans and spans[-1][1] == position:
                spans[-1] = (spans[-1][0], position + 1)
            else:
                spans.append((position, position + 1))
        parts.append(replace(row, input_ids=row.input_ids[: chosen[-1] + 1], label_spans=tuple(spans)))
    return parts
