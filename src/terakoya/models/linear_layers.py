"""The linear layers of a model, by the names and shapes in its files' headers: what an adapter will be put on, and so
how many parameters it has. Opens no tensor, needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from terakoya.models.safetensors_header import read_safetensors_header

_NOT_LINEAR = ("embed", "wte", "wpe", "lm_head", "norm")


@dataclass(frozen=True, slots=True)
class LinearLayer:
    name: str
    """The last part, such as "q_proj"."""
    inputs: int
    outputs: int


def linear_layers(folder: Path) -> list[LinearLayer]:
    """Return those of all layers; none for a model that is not stored as safetensors."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in read_safetensors_header(path).items():
            owner, _, kind = name.rpartition(".")
            if kind == "weight" and len(entry.shape) == 2 and not any(part in owner for part in _NOT_LINEAR):
                found.append(LinearLayer(owner.rpartition(".")[2], entry.shape[1], entry.shape[0]))
    return found


def adapter_parameters(
    layers: Sequence[LinearLayer], targets: str | Sequence[str], rank: int, *, has_magnitudes: bool = False
) -> int:
    """Return the weights of two matrices a layer, and with ``has_magnitudes`` (DoRA) of one number an output."""
    chosen = [layer for layer in layers if targets == "all-linear" or layer.name in targets]
    return sum(rank * (layer.inputs + layer.outputs) + has_magnitudes * layer.outputs for layer in chosen)
