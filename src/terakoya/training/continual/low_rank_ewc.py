"""Online EWC for LoRA: the penalty is on what the adapter does to each weight, not on its factors, whose split is
arbitrary. The importance of a weight is kept as two marginals. Knows layers by the names of their factors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from terakoya.training.continual.fisher import precise
from terakoya.training.continual.lora_layers import COLUMNS, ROWS, LoraNames, lora_layers, lora_names, marginal_fisher
from terakoya.training.continual.low_rank import Factors, Marginals, penalty, penalty_gradient
from terakoya.training.continual.regulariser import TaskEnd
from terakoya.training.continual.state import RetentionState, check_gamma, fold, require_same


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
        self._fixed: dict[str, tuple[Factors, Marginals]] = {}

    def on_task_start(self, state: RetentionState | None) -> None:
        """Raises: ChainMismatch, also if the model trains anything that is not a factor of these layers."""
        if state is not None:
            factors = {name: self._parameters[name] for each in self._names.values() for name in (each.a, each.b)}
            require_same(self._marginal_shapes(), state.importance, what="the importance of the earlier tasks")
            require_same(factors, self._parameters, what="the chain's state")
            _require_names(factors, state.anchor)
            self._fixed = {name: self._taken_up(name, each, state) for name, each in self._names.items()}
        self._state = state

    @torch.no_grad()
    def add_grad_(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        for name, (anchor, marginals) in self._fixed.items():
            each = self._names[name]
            for factor, gradient in zip(
                (parameters[each.a], parameters[each.b]),
                penalty_gradient(self._now(each, parameters), anchor, marginals),
                strict=True,
            ):
                if factor.grad is None:
                    factor.grad = torch.zeros_like(factor)
                factor.grad.add_(gradient, alpha=self.strength * self.gamma)

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
        total = sum(
            self.gamma * float(penalty(self._now(self._names[name], parameters), anchor, marginals))
            for name, (anchor, marginals) in self._fixed.items()
        )
        return {"lambda": self.strength, "penalty": float(total)}

    @staticmethod
    def _now(names: LoraNames, parameters: Mapping[str, nn.Parameter]) -> Factors:
        return Factors(parameters[names.a].detach(), parameters[names.b].detach(), names.scale)

    def _taken_up(self, layer: str, names: LoraNames, state: RetentionState) -> tuple[Factors, Marginals]:
        like = self._parameters[names.a]

        def here(tensor: Tensor) -> Tensor:  # a copy: an anchor that shared memory would move along, and never pull
            return tensor.detach().to(like.device, precise(like.dtype), copy=True)

        return (
            Factors(here(state.anchor[names.a]), here(state.anchor[names.b]), 1.0),
            Marginals(here(state.importance[ROWS + layer]), here(state.importance[COLUMNS + layer])),
        )

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
