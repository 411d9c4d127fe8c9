"""Online EWC for LoRA: the penalty is on what the adapter does to each weight, not on its factors, whose split is
arbitrary. The importance of a weight is kept as two marginals. Knows layers by the names of their factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from terakoya.training.continual.fisher import precise
from terakoya.training.continual.lora_layers import COLUMNS, ROWS, lora_layers, lora_names, marginal_fisher
from terakoya.training.continual.low_rank import Factors, Marginals, penalty, penalty_gradient
from terakoya.training.continual.regulariser import TaskEnd
from terakoya.training.continual.state import RetentionState, check_gamma, fold, require_same

_LAYERS = 16
"""Computed together at most: more no longer fit into a processor's cache."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Layers that are computed together; tensors have them in front."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    """The names of their factors."""
    scale: float
    anchor: Factors
    marginals: Marginals

    def now(self, parameters: Mapping[str, nn.Parameter]) -> Factors:
        a, b = ([parameters[name].detach() for name in names] for names in (self.a, self.b))
        return Factors(torch.stack(a), torch.stack(b), self.scale)

    def layers(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[tuple[Factors, Factors, Marginals]]:
        """One by one: as it is, its anchor, its marginals."""
        now = self.now(parameters)
        for place in range(len(self.a)):
            yield (
                Factors(now.a[place], now.b[place], self.scale),
                Factors(self.anchor.a[place], self.anchor.b[place], self.anchor.scale),
                Marginals(self.marginals.rows[place], self.marginals.columns[place]),
            )


class LowRankEwc:
    """Penalty (lambda / 2) * gamma * sum_ij S_ij (dW_ij - dW*_ij)^2 with S_ij = rows_i * columns_j / trace.

    The marginals of a sum are the sums of the marginals, so the online form stays exact in them.
    """

    def __init__(self, module: nn.Module, *, strength: float, gamma: float = 1.0) -> None:
        check_gamma(gamma)
        self.strength = strength
        self.gamma = gamma
        self._layers = lora_layers(module)
        self._names = lora_names(module)
        self._parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self._state: RetentionState | None = None
        self._groups: list[_Group] = []

    def on_task_start(self, state: RetentionState | None) -> None:
        """Raises: ChainMismatch, also if the model trains anything that is not a factor of these layers."""
        self._groups = []
        if state is not None:
            factors = {name: self._parameters[name] for each in self._names.values() for name in (each.a, each.b)}
            require_same(self._marginal_shapes(), state.importance, what="the importance of the earlier tasks")
            require_same(factors, self._parameters, what="the chain's state")
            _require_names(factors, state.anchor)
            self._groups = self._grouped(state)
        self._state = state

    @torch.no_grad()
    def add_grad_(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        for group in self._groups:
            gradients = penalty_gradient(group.now(parameters), group.anchor, group.marginals)
            for names, stacked in zip((group.a, group.b), gradients, strict=True):
                held = [_gradient_of(parameters[name]) for name in names]
                torch._foreach_add_(held, stacked.unbind(), alpha=self.strength * self.gamma)

    def on_task_end(self, context: TaskEnd) -> RetentionState:
        fisher = marginal_fisher(self._layers, context.batches, cotangents=context.cotangents, seed=context.seed)
        return fold(self._state, fisher.values, self.anchor_of(context.parameters), gamma=self.gamma)

    def anchor_of(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """The factors with their scale in B: a later run may scale otherwise."""
        anchor = {}
        for each in self._names.values():
            anchor[each.a] = parameters[each.a].detach()
            anchor[each.b] = parameters[each.b].detach() * each.scale
        return anchor

    @torch.no_grad()
    def diagnostics(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
        """``penalty`` without lambda: the rise of the earlier tasks' KL that a quadratic with this F predicts."""
        total = sum(self.gamma * float(penalty(*layer)) for group in self._groups for layer in group.layers(parameters))
        return {"lambda": self.strength, "penalty": float(total)}

    def _grouped(self, state: RetentionState) -> list[_Group]:
        """Layers alike in shape, scale and place together: a few large products instead of many small ones."""
        alike: dict[object, list[str]] = {}
        for layer, names in self._names.items():
            a, b = self._parameters[names.a], self._parameters[names.b]
            anchored = state.anchor[names.a].shape
            alike.setdefault((a.shape, b.shape, anchored, names.scale, a.dtype, a.device), []).append(layer)
        parts = (found[start : start + _LAYERS] for found in alike.values() for start in range(0, len(found), _LAYERS))
        return [self._group(part, state) for part in parts]

    def _group(self, layers: Sequence[str], state: RetentionState) -> _Group:
        names = [self._names[layer] for layer in layers]
        like = self._parameters[names[0].a]

        def here(tensors: Iterable[Tensor]) -> Tensor:  # copies: an anchor that shared memory would move along
            return torch.stack([each.detach() for each in tensors]).to(like.device, precise(like.dtype))

        anchor = Factors(
            here(state.anchor[each.a] for each in names), here(state.anchor[each.b] for each in names), 1.0
        )
        rows, columns = (here(state.importance[part + layer] for layer in layers) for part in (ROWS, COLUMNS))
        a, b = tuple(each.a for each in names), tuple(each.b for each in names)
        return _Group(a, b, names[0].scale, anchor, Marginals(rows, columns))

    def _marginal_shapes(self) -> dict[str, Tensor]:
        """Tensors without storage, in the shapes that marginals of this model have."""
        shapes = {}
        for layer, names in self._names.items():
            shapes[ROWS + layer] = torch.empty(self._parameters[names.b].shape[0], device="meta")
            shapes[COLUMNS + layer] = torch.empty(self._parameters[names.a].shape[1], device="meta")
        return shapes


def _require_names(factors: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> None:
    """The anchor has the same layers; its rank may be another."""
    narrow = {name: factor[:1, :1] for name, factor in factors.items()}
    require_same(narrow, {name: tensor[:1, :1] for name, tensor in anchor.items()}, what="the chain's anchor")


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    """A factor the task did not use still feels the penalty."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
