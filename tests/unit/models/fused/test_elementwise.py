"""Hand-written derivatives against numerical ones, and values against Transformers' own modules."""

from __future__ import annotations

import torch
from torch.autograd import gradcheck
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from terakoya.models.fused.elementwise import RmsNorm, SwiGlu


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_the_norm_is_that_of_llama() -> None:
    norm = LlamaRMSNorm(8, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(5, 8)
    torch.testing.assert_close(RmsNorm.apply(x, norm.weight, 1e-5, torch.float32), norm(x))


def test_the_norm_has_the_derivative_of_its_formula() -> None:
    assert gradcheck(lambda x, weight: RmsNorm.apply(x, weight, 1e-5, torch.float64), (drawn(4, 6), drawn(6)))


def test_the_gate_is_the_activated_half_times_the_other() -> None:
    gate_up = drawn(4, 6)
    torch.testing.assert_close(SwiGlu.apply(gate_up), silu(gate_up[:, :3]) * gate_up[:, 3:])
    assert gradcheck(SwiGlu.apply, (gate_up,))
