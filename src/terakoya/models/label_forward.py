"""What a causal language model says of the labelled tokens of some rows, by the cheapest way through it that
agrees with the model's own forward: packed without padding, padded with the head only where a label is, or whole.

Used alike for training and scoring; knows nothing of either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from terakoya.models.evaluating import evaluating
from terakoya.models.fused.decoder import FusedDecoder, understands
from terakoya.models.packing import ATTENTION, PackedBatch, Row, pack, predicting_positions

LABELS_AT_ONCE = 512
"""The head's output for more labels than this is recomputed in the backward pass, so that memory stays bounded."""
_JUDGED_AT_ONCE = 128
"""Without a backward pass smaller pieces cost nothing: judging then takes less memory than training did."""
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
"""Largest difference of two logits that is rounding, relative to the spread of all logits."""


class Way(StrEnum):
    FUSED = "fused"
    """As packed, by hand-written passes made for processors (``models/fused``)."""
    PACKED = "packed"
    """One flat sequence, shared prefix once, head at labels only."""
    PADDED = "padded"
    """Rows padded to the longest, head at labels only."""
    WHOLE = "whole"
    """Rows padded to the longest, the model's own logits at every position."""


_FLAT = (Way.FUSED, Way.PACKED)


class LabelForward:
    """Per-label loss of rows under one module. The way is fixed at construction; ``choose`` finds the best."""

    def __init__(self, module: nn.Module, *, way: Way, share_prefix: bool = True) -> None:
        self.way = way
        self._share_prefix = share_prefix
        self._module = module
        causal = cast(Any, module)
        self._causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        self._backbone: Any = getattr(self._causal, self._causal.base_model_prefix)
        self._head: nn.Module = self._causal.get_output_embeddings()
        self._device = next(module.parameters()).device
        self._decoders: dict[torch.dtype, FusedDecoder] = {}

    @classmethod
    def choose(cls, module: nn.Module, rows: Sequence[Row], *, share_prefix: bool = True) -> LabelForward:
        """Return the cheapest way whose logits on these few rows are the model's own, up to rounding."""
        with evaluating(module), torch.no_grad():
            reference = cls(module, way=Way.WHOLE).logits(rows)
            for way in (Way.FUSED, Way.PACKED, Way.PADDED):
                forward = cls(module, way=way, share_prefix=share_prefix)
                if forward.is_possible() and _agree(forward.logits(rows), reference):
                    return forward
        return cls(module, way=Way.WHOLE)

    def through_modules(self) -> LabelForward:
        """The same by the modules themselves, for who looks at what goes through them; fused passes call none."""
        if self.way is not Way.FUSED:
            return self
        return LabelForward(self._module, way=Way.PACKED, share_prefix=self._share_prefix)

    @property
    def shares_prefix(self) -> bool:
        return self.way in _FLAT and self._share_prefix

    def is_possible(self) -> bool:
        """Whether the model's code has what this way needs; whether it is then right, only trying tells."""
        if self.way not in _FLAT:
            return True
        config = self._causal.config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        flat = (
            bool(getattr(self._backbone, "_supports_attention_backend", False))
            and "position_ids" in inspect.signature(self._backbone.forward).parameters
            and kinds == {"full_attention"}
            and getattr(config, "sliding_window", None) is None  # short rows would not show it
        )
        if self.way is Way.PACKED or not flat:
            return flat
        return self._device.type == "cpu" and understands(self._causal, self._backbone)

    def held(self) -> AbstractContextManager[None]:
        """A context for backward passes that recompute activations: what a layer does is then decided there once
        more, and must be decided alike. Other forward passes are as ever in it.
        """
        return _attention(self._causal, ATTENTION if self.way is Way.PACKED else None)

    def losses(self, rows: Sequence[Row]) -> Tensor:
        """Return the loss of each label, row after row: [labels], float32, differentiable."""
        if self.way is Way.FUSED:
            decoder = self._decoder()
            batch = pack(rows, share_prefix=self.shares_prefix)
            with torch.autocast("cpu", enabled=False):
                return decoder.losses(decoder.states(batch).index_select(0, batch.predicting), batch.labels)
        states, labels = self._states(rows)
        if len(labels) <= LABELS_AT_ONCE:
            return self._loss(states, labels)
        parts = [checkpoint(self._loss, *part, use_reentrant=False) for part in _parts(states, labels, LABELS_AT_ONCE)]
        return torch.cat(cast(list[Tensor], parts))

    def predict(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Return each label's loss, float32, and the likeliest token in its place: [labels] both."""
        states, labels = self._states(rows)
        losses, likeliest = [], []
        for part, wanted in _parts(states, labels, _JUDGED_AT_ONCE):
            logits = self._logits(part)
            losses.append(cross_entropy(logits, wanted, reduction="none"))
            likeliest.append(logits.argmax(-1))
        return torch.cat(losses), torch.cat(likeliest)

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """[labels, vocabulary], float32: of so many labels that all of them fit into memory at once."""
        return self._logits(self._states(rows)[0])

    def of_logits(self, rows: Sequence[Row], compute: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Return what ``compute`` makes of the logits, row after row, differentiable: [labels, ...].

        It is given [some labels, vocabulary], float32, and which of all labels these are: never more than the head
        answers for at once, and recomputed in the backward pass where there are more in all.
        """
        states, labels = self._states(rows)
        starts = range(0, len(labels), LABELS_AT_ONCE)
        pieces = [slice(start, min(start + LABELS_AT_ONCE, len(labels))) for start in starts]
        if len(pieces) == 1:
            return compute(self._logits(states), pieces[0])

        def part(piece: slice) -> Tensor:
            return compute(self._logits(states[piece]), piece)

        return torch.cat([cast(Tensor, checkpoint(part, piece, use_reentrant=False)) for piece in pieces])

    def _states(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """What the head turns into the labels' logits, [labels, width], and the labels, [labels]."""
        batch = pack(rows, share_prefix=self.shares_prefix).to(self._device)
        if self.way is Way.FUSED:
            with torch.autocast("cpu", enabled=False):
                return self._decoder().states(batch).index_select(0, batch.predicting), batch.labels
        if self.way is Way.PACKED:
            return self._packed_states(batch), batch.labels
        ids, mask, positions = _pad(rows, self._device)
        model = self._backbone if self.way is Way.PADDED else self._causal
        with _attention(self._causal, None):
            output = model(input_ids=ids, attention_mask=mask, use_cache=False)
        states: Tensor = output[0]  # hidden states, or already logits
        return states.flatten(0, 1).index_select(0, positions), batch.labels

    def _packed_states(self, batch: PackedBatch) -> Tensor:
        with _attention(self._causal, ATTENTION):
            output = self._backbone(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                # Four dimensions: Transformers then makes no mask of its own; ours is in the layout.
                attention_mask=batch.input_ids.new_ones(1, 1, 1, 1, dtype=torch.bool),
                use_cache=False,
                packed_layout=batch.layout,
            )
        states: Tensor = output[0]
        return states[0].index_select(0, batch.predicting)

    def _decoder(self) -> FusedDecoder:
        """In the type of autocast where that is on, otherwise in that of the weights."""
        weights: torch.dtype = self._backbone.embed_tokens.weight.dtype
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weights
        if dtype not in self._decoders:
            self._decoders[dtype] = FusedDecoder(self._causal, self._backbone, dtype)
        return self._decoders[dtype]

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = states if self.way is Way.WHOLE else self._head(states)
        return logits.float()

    def _loss(self, states: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self._logits(states), labels, reduction="none")


class _attention:  # noqa: N801 - used as a function
    """Run the block under another attention implementation of the model's configuration; None keeps its own."""

    def __init__(self, causal: Any, implementation: str | None) -> None:
        self._config = causal.config
        self._implementation = implementation

    def __enter__(self) -> None:
        self._own = self._config._attn_implementation
        if self._implementation is not None:
            self._config._attn_implementation = self._implementation

    def __exit__(self, *_: object) -> None:
        if self._implementation is not None:
            self._config._attn_implementation = self._own


def _pad(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and mask, [rows, longest], and the flat positions that predict a label, [labels]."""
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    positions: list[int] = []
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        ids[number, :length] = torch.tensor(row.input_ids)
        mask[number, :length] = 1
        positions.extend(number * longest + position for position in predicting_positions(row))
    return ids.to(device), mask.to(device), torch.tensor(positions, device=device)


def _parts(states: Tensor, labels: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut both into pieces of at most so many labels."""
    for start in range(0, len(labels), most):
        piece = slice(start, start + most)
        yield states[piece], labels[piece]


def _agree(found: Tensor, reference: Tensor) -> bool:
    spread = (reference.max() - reference.min()).item()
    exact = not torch.is_autocast_enabled(found.device.type)
    tolerance = _TOLERANCE[torch.float32 if exact else torch.bfloat16]
    return bool((found - reference).abs().max().item() <= tolerance * spread)
