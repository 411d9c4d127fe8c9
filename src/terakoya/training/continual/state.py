"""What is remembered of all earlier tasks: how important each weight is, and where it stood. One state of constant
size however long the chain. Knows no module and no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from terakoya.exceptions import TrainingError
from terakoya.training.continual.errors import ChainMismatch


@dataclass(frozen=True, slots=True)
class RetentionState:
    """S_t and theta*_t. For LoRA the importance is that of the weights beneath, as ``rows/`` and ``columns/`` sums."""

    importance: dict[str, Tensor]
    """S_t = gamma * S_(t-1) + F_t, float32, never negative."""
    anchor: dict[str, Tensor]
    """The trained weights as the last task left them."""
    tasks: int

    @property
    def size_bytes(self) -> int:
        tensors = (*self.importance.values(), *self.anchor.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fold(
    before: RetentionState | None,
    fisher: Mapping[str, Tensor],
    anchor: Mapping[str, Tensor],
    *,
    gamma: float,
    weight: float = 1.0,
) -> RetentionState:
    """Return the state after one more task: S = gamma * S_before + weight * F, anchored where the weights are now.

    ``weight`` is 1 for tasks that count alike; the number of examples makes the state the Laplace posterior's.
    Raises: ChainMismatch if the two do not speak of the same weights.

    Source: Schwarz et al. 2018, section 3.2; Huszar 2018: one anchor, the newest, instead of one penalty a task.
    """
    check_gamma(gamma)
    kept = {name: weight * value.detach().clone() for name, value in fisher.items()}
    if before is not None:
        require_same(before.importance, kept, what="the importance of the earlier tasks")
        kept = {name: gamma * before.importance[name] + value for name, value in kept.items()}
    return RetentionState(
        kept, {name: value.detach().clone() for name, value in anchor.items()}, (before.tasks if before else 0) + 1
    )


def check_gamma(gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise TrainingError(f"gamma must be above 0 and at most 1 (1 forgets nothing); got {gamma!r}")


def require_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, what: str) -> None:
    """Raises: ChainMismatch naming a weight that is missing, foreign or of another shape, or if there is none."""
    if not expected or not found:
        raise ChainMismatch(f"{what} tracks no weight at all, so it would protect nothing")
    if missing := sorted(expected.keys() - found.keys()):
        raise ChainMismatch(f"{what} tracks {missing[0]!r}, which this model does not train ({len(missing)} such)")
    if foreign := sorted(found.keys() - expected.keys()):
        raise ChainMismatch(f"this model trains {foreign[0]!r}, which {what} does not track ({len(foreign)} such)")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ChainMismatch(
                f"{what} tracks {name!r} with shape {list(tensor.shape)}, here it has {list(found[name].shape)}"
            )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and bytes, whatever file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
