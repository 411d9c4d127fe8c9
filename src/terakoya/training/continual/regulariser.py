"""The contract of a retention part that pulls on the weights: it adds to the gradient, never to the loss, so that no
reported or evaluated loss contains it. Knows nothing of replay or objectives, which combine with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from terakoya.training.continual.fisher import Cotangents, SequenceBatch, s_rademacher
from terakoya.training.continual.state import RetentionState


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """What a regulariser may look at when a task has been learned."""

    parameters: Mapping[str, nn.Parameter]
    batches: Iterable[SequenceBatch]
    """Sequences of the task just learned, in evaluation mode, without augmentation or dropout."""
    seed: int
    cotangents: Cotangents = s_rademacher


class Regulariser(Protocol):
    strength: float
    """lambda; it may be steered between steps."""

    def on_task_start(self, state: RetentionState | None) -> None:
        """Take up what earlier tasks left; None at the beginning of a chain. Raises: ChainMismatch."""
        ...

    def add_grad_(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Add the penalty's gradient to ``.grad``, once an optimizer step, after the task's gradient was clipped."""
        ...

    def on_task_end(self, context: TaskEnd) -> RetentionState:
        """Return the state for the next task."""
        ...

    def anchor_of(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """What an anchor at these weights looks like: it tells whether a model is the one a chain ended with."""
        ...

    def diagnostics(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
        """Figures for a chart. The penalty is not what is forgotten: that is measured on examples."""
        ...
