"""A group of linear layers against the layers themselves, with and without LoRA, trained and frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from terakoya.models.fused.linear import LinearGroup, is_plain


class Three(nn.Module):
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, out, bias=bias) for out in (8, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)


def adapted(base: Three, **options: Any) -> Any:
    module = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=["q", "k", "v"], **options))
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return module


def layers_of(module: Any) -> list[nn.Module]:
    inner = module.base_model.model if hasattr(module, "base_model") else module
    return [inner.q, inner.k, inner.v]


def gradients(module: nn.Module, out: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return {name: each.grad.clone() for name, each in module.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_a_group_gives_what_its_layers_give(lora: bool, bias: bool) -> None:
    torch.manual_seed(0)
    base = Three(bias=bias)
    module = adapted(base) if lora else base
    x = torch.randn(5, 6, requires_grad=True)
    expected = module(x)
    expected_gradients = gradients(module, expected) | {"x": x.grad.clone()}
    x.grad = None
    found = LinearGroup(layers_of(module), torch.float32)(x)
    found_gradients = gradients(module, found) | {"x": x.grad.clone()}
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradients, expected_gradients, rtol=1e-5, atol=1e-4)  # of values up to 1e2


@pytest.mark.parametrize("lora", [False, True])
def test_copies_in_bfloat16_follow_the_masters(lora: bool) -> None:
    torch.manual_seed(0)
    module = adapted(Three(bias=False)) if lora else Three(bias=False)
    group = LinearGroup(layers_of(module), torch.bfloat16)
    x = torch.randn(5, 6, dtype=torch.bfloat16)
    before = group(x)
    found = gradients(module, before.float())
    assert {each.dtype for each in found.values()} == {torch.float32}
    optimizer = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad], lr=0.5, fused=True)
    optimizer.step()
    after = group(x)
    assert not torch.equal(before, after)
    # bfloat16 has 8 bits: three roundings of values up to about ten.
    torch.testing.assert_close(after.float(), module(x.float()).float(), atol=0.15, rtol=0.02)


def test_frozen_weights_are_held_once() -> None:
    module = adapted(Three(bias=False))
    values = [layer.base_layer.weight.clone() for layer in layers_of(module)]
    LinearGroup(layers_of(module), torch.float32)(torch.zeros(1, 6))
    weights = [layer.base_layer.weight for layer in layers_of(module)]
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1
    assert all(map(torch.equal, weights, values))


def test_an_adapter_that_is_off_is_left_out() -> None:
    module = adapted(Three(bias=False))
    group, x = LinearGroup(layers_of(module), torch.float32), torch.randn(2, 6)
    with module.disable_adapter():
        torch.testing.assert_close(group(x), module(x))
    assert not torch.equal(group(x), module.base_model.model.q.base_layer(x))


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_what_a_group_cannot_compute_is_not_plain(options: dict[str, Any]) -> None:
    assert not any(map(is_plain, layers_of(adapted(Three(bias=False), **options))))
