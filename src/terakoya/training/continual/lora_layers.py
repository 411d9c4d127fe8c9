"""Finds the LoRA layers of a module and taps what goes into and comes out of them, for the marginals of the Fisher of
the weights beneath. The one place of this room that knows PEFT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from terakoya.exceptions import InvalidConfig, TrainingError
from terakoya.training.continual.fisher import (
    Cotangents,
    FisherEstimate,
    SequenceBatch,
    backward_passes,
    require_sequences,
    s_rademacher,
)
from terakoya.training.continual.low_rank import squared_gradient_marginals

_ADAPTER = "default"
ROWS, COLUMNS = "rows/", "columns/"
"""Prefixes of a layer's marginals among the values of an estimate."""


@dataclass(frozen=True, slots=True)
class LoraNames:
    """The names of a layer's factors among the module's parameters."""

    a: str
    b: str
    scale: float


def lora_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The linear layers that carry an adapter, by name. Raises: InvalidConfig for an adapter on anything else."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in layers.items():
        if not isinstance(cast(Any, layer).get_base_layer(), nn.Linear) or _ADAPTER not in cast(Any, layer).lora_A:
            raise InvalidConfig(f"the adapter on {name!r} is not on a linear layer; its importance cannot be estimated")
    return layers


def lora_names(module: nn.Module) -> dict[str, LoraNames]:
    """Where each layer's factors are among ``module.named_parameters()``."""
    return {
        name: LoraNames(
            f"{name}.lora_A.{_ADAPTER}.weight",
            f"{name}.lora_B.{_ADAPTER}.weight",
            float(cast(Any, layer).scaling[_ADAPTER]),
        )
        for name, layer in lora_layers(module).items()
    }


def marginal_fisher(
    layers: Mapping[str, nn.Module],
    batches: Iterable[SequenceBatch],
    *,
    cotangents: Cotangents = s_rademacher,
    seed: int = 0,
) -> FisherEstimate:
    """Estimate the marginals of each layer's diagonal Fisher, as ``rows/<layer>`` and ``columns/<layer>``.

    The gradient of a weight is never formed for longer than one layer, and frozen weights need none: what a layer
    sees and what comes back to its output are enough. The module must be in evaluation mode.
    Raises: TrainingError without sequences, or if the logits come by a way that passes the layers by.
    """
    values: dict[str, Tensor] = {}
    sequences = targets = 0
    with _tapped(layers) as taps:
        for batch, cotangent, logits in backward_passes(_cleared(batches, taps), cotangents, seed):
            if silent := [name for name, uses in taps.items() if not uses]:
                raise TrainingError(
                    f"nothing went through {silent[0]!r} ({len(silent)} such), so its importance cannot be estimated"
                )
            outputs = [output for uses in taps.values() for _, output in uses]
            deltas = iter(torch.autograd.grad(logits, outputs, cotangent, retain_graph=True))
            for name, uses in taps.items():
                _add(values, name, [seen for seen, _ in uses], [next(deltas) for _ in uses])
            if batch is not None:
                sequences += batch.sequences
                targets += len(logits)
    require_sequences(sequences)
    return FisherEstimate({name: value.div_(sequences) for name, value in values.items()}, sequences, targets)


def _add(values: dict[str, Tensor], name: str, inputs: list[Tensor], deltas: list[Tensor]) -> None:
    """A layer that is used twice in a pass has one gradient, the sum: its uses follow each other as tokens."""
    seen = torch.cat([each.reshape(-1, *each.shape[-2:]) for each in inputs], dim=1)
    back = torch.cat([each.reshape(-1, *each.shape[-2:]) for each in deltas], dim=1)
    marginals = squared_gradient_marginals(seen, back)
    for key, value in ((ROWS + name, marginals.rows), (COLUMNS + name, marginals.columns)):
        values[key] = values[key] + value if key in values else value


Taps = dict[str, list[tuple[Tensor, Tensor]]]
"""What went into a layer and what came out, [sequences, tokens, width] both, for each use in the last forward pass."""


@contextmanager
def _tapped(layers: Mapping[str, nn.Module]) -> Iterator[Taps]:
    taps: Taps = {name: [] for name in layers}

    def tap(name: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            taps[name].append((inputs[0].detach(), output))

        return keep

    handles = [layer.register_forward_hook(tap(name)) for name, layer in layers.items()]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def _cleared(batches: Iterable[SequenceBatch], taps: Taps) -> Iterator[SequenceBatch]:
    """Forget the last forward pass before the next is made."""
    for batch in batches:
        for uses in taps.values():
            uses.clear()
        yield batch
