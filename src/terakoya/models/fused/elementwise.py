"""What a decoder does to each number or each token by itself: RMSNorm and the gated activation, each with its
backward pass in few passes over memory. Knows shapes, not models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which sums are taken: float32 for the narrow types."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def rounded_up(count: int, step: int) -> int:
    """Return the next multiple of ``step``.

    oneDNN compiles each product of bfloat16 for its exact sizes, which takes a millisecond and .6 MB, of which it never
    gives half back. Sizes that follow each step's rows would cost gigabytes in a long run; few sizes come again.
    """
    return -(-count // step) * step


class RmsNorm(torch.autograd.Function):
    """x [tokens, width] scaled to a root mean square of one, times ``weight`` [width]; the result in ``dtype``.

    Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", eq. 4, with epsilon as Llama has it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        exact = x.to(wide(x.dtype))
        inverse = (exact.square().mean(-1, keepdim=True) + epsilon).rsqrt_()  # [tokens, 1]
        ctx.save_for_backward(x, weight, inverse)
        return (exact * inverse).to(dtype).mul_(weight.to(dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, inverse = ctx.saved_tensors
        exact = wide(x.dtype)
        normal = x.to(exact) * inverse  # [tokens, width]
        gradient = gradient.to(exact)
        for_weight = (gradient * normal).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        scaled = gradient * weight.to(exact)
        along = (scaled * normal).mean(-1, keepdim=True)
        for_x = torch.addcmul(scaled, normal, along, value=-1).mul_(inverse).to(x.dtype)
        return for_x, for_weight, None, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up of [tokens, 2 * inner], gate in front -> [tokens, inner].

    Source: Shazeer 2020, "GLU Variants Improve Transformer", eq. 6, without its products.
    """

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        for_gate, for_up = result.chunk(2, dim=-1)
        torch.mul(gradient, silu(gate), out=for_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=for_gate)
        return result
