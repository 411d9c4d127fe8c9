"""Runs many rows of tokens through a causal language model as one flat sequence: no padding in any linear
layer, and a prefix that all rows share (a system prompt, a fixed instruction) computed once. The meaning is
that of running each row alone; ``docs/adr/0003`` has the argument.

Knows tokens and modules, not training or scoring: both use it. Its batches come from ``pack``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "terakoya_packed"
IGNORED = -100


class Row(Protocol):
    """One row of tokens, some of which the model is asked to say: the labels."""

    @property
    def input_ids(self) -> Sequence[int]: ...

    @property
    def label_spans(self) -> Sequence[tuple[int, int]]:
        """Half-open spans of positions whose tokens are labels: at least one, sorted, disjoint, none empty, and
        never with position 0, which nothing predicts."""
        ...


@dataclass(frozen=True)
class Layout:
    """Where each row's own tokens lie in the flat sequence; handed down to the attention function. The tensors are made
    when they are read first: not every way through a model needs them.
    """

    prefix: int
    """Length of the shared prefix, at the start of the sequence."""
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    """Flat position and number of each row's own tokens."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009  immutable

    @cached_property
    def gather(self) -> Tensor:
        """[rows, longest]: flat position of each row's own tokens; a row's padding points at its last token."""
        offsets = torch.arange(max(self.lengths)).expand(len(self.lengths), -1)
        last = torch.tensor(self.lengths).unsqueeze(1) - 1
        return (torch.tensor(self.starts).unsqueeze(1) + torch.minimum(offsets, last)).to(self.device)

    @cached_property
    def scatter(self) -> Tensor:
        """[own tokens]: index into [rows * longest] of each flat token after the prefix."""
        longest = max(self.lengths)
        places = [torch.arange(length) + number * longest for number, length in enumerate(self.lengths)]
        return torch.cat(places).to(self.device)

    @cached_property
    def mask(self) -> Tensor:
        """[longest, prefix + longest], bool: what a row's token may look at."""
        longest = max(self.lengths)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=self.device).tril()
        return pad(causal, (self.prefix, 0), value=True)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    input_ids: Tensor
    """[1, tokens]"""
    position_ids: Tensor
    """[1, tokens]: as if each row stood alone."""
    predicting: Tensor
    """[labels]: flat positions whose next token is a label, row after row."""
    labels: Tensor
    """[labels]"""
    label_counts: tuple[int, ...]
    """Labels of each row, in the order given."""
    layout: Layout
    row_tokens: int
    """Tokens of all rows as if nothing were shared."""

    def to(self, device: torch.device) -> PackedBatch:
        if device.type == "cpu":
            return self
        return PackedBatch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.predicting.to(device),
            self.labels.to(device),
            self.label_counts,
            replace(self.layout, device=device),
            self.row_tokens,
        )


def label_count(row: Row) -> int:
    return sum(end - start for start, end in row.label_spans)


def predicting_positions(row: Row) -> list[int]:
    """Return the positions, within the row, whose next token is a label."""
    return [position for start, end in row.label_spans for position in range(start - 1, end - 1)]


def labels_of(row: Row) -> list[int]:
    return [token for start, end in row.label_spans for token in row.input_ids[start:end]]


def shared_prefix(rows: Sequence[Row]) -> int:
    """Return how many leading tokens all rows share, leaving every row the position that predicts its first label."""
    if len(rows) < 2:
        return 0
    limit = min(row.label_spans[0][0] for row in rows) - 1
    # What the smallest and the largest row have in common, all have.
    low, high = min(list(row.input_ids) for row in rows), max(list(row.input_ids) for row in rows)
    for position in range(limit):
        if low[position] != high[position]:
            return position
    return max(limit, 0)


def pack(rows: Sequence[Row], *, share_prefix: bool = True) -> PackedBatch:
    """Lay the rows end to end after their shared prefix."""
    prefix = shared_prefix(rows) if share_prefix else 0
    own = [len(row.input_ids) - prefix for row in rows]
    ids: list[int] = list(rows[0].input_ids[:prefix])
    positions = list(range(prefix))
    predicting: list[int] = []
    labels: list[int] = []
    starts: list[int] = []
    for row, length in zip(rows, own, strict=True):
        start = len(ids)
        starts.append(start)
        ids.extend(row.input_ids[prefix:])
        positions.extend(range(prefix, prefix + length))
        predicting.extend(start - prefix + position for position in predicting_positions(row))
        labels.extend(labels_of(row))
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        predicting=torch.tensor(predicting),
        labels=torch.tensor(labels),
        label_counts=tuple(map(label_count, rows)),
        layout=Layout(prefix, tuple(starts), tuple(own)),
        row_tokens=sum(len(row.input_ids) for row in rows),
    )


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each row and to the shared prefix; without a layout, Transformers' own SDPA.

    query [1, heads, tokens, width], key and value [1, key heads, tokens, width] -> [1, tokens, heads, width].
    """
    if packed_layout is None:
        return cast(
            tuple[Tensor, None],
            sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs),
        )
    prefix, gather = packed_layout.prefix, packed_layout.gather
    rows, longest = gather.shape
    grouped = query.shape[1] != key.shape[1]
    flat = gather.flatten()

    def by_row(states: Tensor) -> Tensor:  # [1, heads, tokens, width] -> [rows, heads, longest, width]
        heads, width = states.shape[1], states.shape[3]
        return states[0].index_select(1, flat).view(heads, rows, longest, width).transpose(0, 1)

    def after_prefix(states: Tensor) -> Tensor:  # -> [rows, heads, prefix + longest, width]
        own = by_row(states)
        if not prefix:
            return own
        shared = states[:, :, :prefix].expand(rows, -1, -1, -1)
        return torch.cat([shared, own], dim=2)

    own = scaled_dot_product_attention(
        by_row(query),
        after_prefix(key),
        after_prefix(value),
        attn_mask=packed_layout.mask,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=grouped,
    )
    # [rows, heads, longest, width] -> [own tokens, heads, width]
    out = own.transpose(1, 2).flatten(0, 1).index_select(0, packed_layout.scatter)
    if prefix:
        shared = scaled_dot_product_attention(
            query[:, :, :prefix],
            key[:, :, :prefix],
            value[:, :, :prefix],
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
            enable_gqa=grouped,
        )
        out = torch.cat([shared[0].transpose(0, 1), out])
    return out.unsqueeze(0), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
