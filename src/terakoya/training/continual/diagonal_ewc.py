"""Online EWC with one importance per weight: the form for full fine-tuning. Knows named weights, not what they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from terakoya.training.continual.fisher import diagonal_fisher, precise
from terakoya.training.continual.regulariser import TaskEnd
from terakoya.training.continual.state import RetentionState, check_gamma, fold, require_same

_PIECE = 1 << 16
"""Elements handled at once on a CPU, so that the difference of two weights stays in its cache."""


class DiagonalEwc:
    """Penalty (lambda / 2) * gamma * sum_i S_i (theta_i - theta*_i)^2, as a gradient.

    Source: Kirkpatrick et al. 2017, eq. 3; Schwarz et al. 2018 for the online form with gamma.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, strength: float, gamma: float = 1.0) -> None:
        check_gamma(gamma)
        self.strength = strength
        self.gamma = gamma
        self._parameters = dict(parameters)
        self._state: RetentionState | None = None

    def on_task_start(self, state: RetentionState | None) -> None:
        if state is not None:
            require_same(state.importance, self._parameters, what="the chain's state")
            require_same(state.importance, state.anchor, what="the chain's state")
            state = RetentionState(self._here(state.importance), self._here(state.anchor), state.tasks)
        self._state = state

    @torch.no_grad()
    def add_grad_(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        if self._state is None:
            return
        gradients = [_gradient_of(parameters[name]) for name in self._state.importance]
        weights: list[Tensor] = [parameters[name] for name in self._state.importance]
        anchors, importances = list(self._state.anchor.values()), list(self._state.importance.values())
        for weight, anchor, importance, gradient in _pieces(weights, anchors, importances, gradients):
            moved = torch._foreach_sub(weight, anchor)
            torch._foreach_addcmul_(gradient, moved, importance, value=self.strength * self.gamma)

    def on_task_end(self, context: TaskEnd) -> RetentionState:
        fisher = diagonal_fisher(context.parameters, context.batches, cotangents=context.cotangents, seed=context.seed)
        return fold(self._state, fisher.values, self.anchor_of(context.parameters), gamma=self.gamma)

    def anchor_of(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        return {name: parameters[name].detach() for name in self._parameters}

    @torch.no_grad()
    def diagnostics(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
        """``penalty`` without lambda: the rise of the earlier tasks' KL that a quadratic with this F predicts."""
        penalty = moved = 0.0
        if self._state is not None:
            for name, importance in self._state.importance.items():
                squared = (parameters[name] - self._state.anchor[name]).square()
                penalty += 0.5 * self.gamma * float((importance * squared).sum())
                moved += float(squared.sum())
        return {"lambda": self.strength, "penalty": penalty, "distance": moved**0.5}

    def _here(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies: an anchor that shared memory with the weights would move along with them, and never pull."""
        return {
            name: tensors[name].detach().to(parameter.device, precise(parameter.dtype), copy=True)
            for name, parameter in self._parameters.items()
        }


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    """A weight the task did not use still feels the penalty."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _pieces(*groups: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Whole groups for a device that fuses them, cache-sized pieces of one tensor after the other for a CPU."""
    if groups[0][0].device.type != "cpu" or not all(each.is_contiguous() for group in groups for each in group):
        yield tuple(list(group) for group in groups)
        return
    for tensors in zip(*groups, strict=True):
        for piece in zip(*(each.view(-1).split(_PIECE) for each in tensors), strict=True):
            yield tuple([each] for each in piece)
