"""The head of a language model and its cross-entropy at labels, together: gradients come out of the forward pass, and
full logits exist for few labels at a time. Knows states, weight and labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from terakoya.models.fused.elementwise import wide

_PRODUCT = 256
"""Labels of one product with the head's weight."""
_ROWS = 16
"""Labels whose logits are normalised at once: so few stay in the processor's cache."""


class LabelLoss(torch.autograd.Function):
    """states [labels, width], weight [vocabulary, width] in the compute type, labels [labels] -> loss of each label.

    The gradient of a label's loss with respect to its logits is softmax minus one at the label, times a factor that
    only the backward pass knows; the factor is the same for a whole row, so it is multiplied in at the end.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        needs_states, needs_weight = ctx.needs_input_grad[:2]
        losses = states.new_empty(len(labels), dtype=wide(states.dtype))
        for_states = torch.empty_like(states) if needs_states else None
        kept = []
        for start in range(0, len(labels), _PRODUCT):
            piece = slice(start, start + _PRODUCT)
            logits = linear(states[piece], weight)
            _normalise(logits, labels[piece], losses[piece], keep=needs_states or needs_weight)
            if for_states is not None:
                for_states[piece] = logits @ weight
            if needs_weight:
                kept.append(logits)
        ctx.save_for_backward(for_states, states if needs_weight else None, *kept)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        for_states, states, *kept = ctx.saved_tensors
        factor = gradients[0].unsqueeze(1)
        for_weight = None
        for number, logits in enumerate(kept):
            piece = slice(number * _PRODUCT, (number + 1) * _PRODUCT)
            scaled = (states[piece] * factor[piece]).to(logits.dtype)
            for_weight = logits.t() @ scaled if for_weight is None else for_weight.addmm_(logits.t(), scaled)
        return None if for_states is None else (for_states * factor).to(for_states.dtype), for_weight, None


def _normalise(logits: Tensor, labels: Tensor, losses: Tensor, *, keep: bool) -> None:
    """Write the labels' losses; turn ``logits`` into the gradient of each loss if it is to be kept."""
    for start in range(0, len(labels), _ROWS):
        piece = slice(start, start + _ROWS)
        exact = logits[piece].to(losses.dtype)
        wanted = labels[piece].unsqueeze(1)
        total = exact.logsumexp(-1, keepdim=True)
        losses[piece] = (total - exact.gather(1, wanted)).squeeze(1)
        if keep:
            softmax = exact.sub_(total).exp_()
            softmax.scatter_add_(1, wanted, torch.full_like(total, -1))
            logits[piece] = softmax
