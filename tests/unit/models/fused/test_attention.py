"""Tiled attention over a flat sequence against attention of each row alone; its derivative against a numerical one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import scaled_dot_product_attention

from terakoya.models.fused import attention
from terakoya.models.fused.attention import Heads, TiledAttention, tiles

HEADS = Heads(queries=4, keys=2, width=4)
SCALE = 0.5


def angles(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    turned = torch.tensor(positions, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.1], dtype=torch.float64)
    return turned.cos(), turned.sin()


def row_alone(qkv: Tensor) -> Tensor:
    """[tokens, (4 + 2 + 2) * 4] -> [tokens, 16], as Llama computes it."""
    cos, sin = (torch.cat([each, each], -1) for each in angles(range(len(qkv))))
    parts = qkv.view(len(qkv), 8, 4).transpose(0, 1)
    half = torch.cat([-parts[..., 2:], parts[..., :2]], -1)
    turned = parts * cos + half * sin
    out = scaled_dot_product_attention(
        turned[None, :4], turned[None, 4:6], parts[None, 6:], is_causal=True, scale=SCALE, enable_gqa=True
    )
    return out[0].transpose(0, 1).flatten(1)


def laid_out(prefix: int, lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where rows start behind the prefix, and the position of every flat token."""
    starts, positions = [], list(range(prefix))
    for length in lengths:
        starts.append(len(positions))
        positions += range(prefix, prefix + length)
    return starts, positions


@pytest.mark.parametrize("prefix", [0, 3, 9])
@pytest.mark.parametrize("kept_keys", [0, 1000])
def test_each_row_attends_as_if_it_stood_alone(prefix: int, kept_keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SHORT", 5)
    monkeypatch.setattr(attention, "_QUERIES", 4)
    monkeypatch.setattr(attention, "_KEPT_KEYS", kept_keys)
    lengths = [2, 11, 5, 1, 8]
    starts, positions = laid_out(prefix, lengths)
    cos, sin = angles(positions)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(len(positions), 32, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(len(positions), 16, dtype=torch.float64, generator=generator)

    plan = tiles(prefix, starts, lengths, len(positions))
    found = TiledAttention.apply(qkv, cos, sin, HEADS, plan, SCALE)
    (gradient,) = torch.autograd.grad((found * weight).sum(), qkv)

    pieces = [row_alone(qkv[:prefix])] if prefix else []
    for start, length in zip(starts, lengths, strict=True):
        row = torch.cat([qkv[:prefix], qkv[start : start + length]])
        pieces.append(row_alone(row)[prefix:])
    expected = torch.cat(pieces)
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), qkv)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_the_derivative_is_the_numerical_one() -> None:
    starts, positions = laid_out(2, [3, 1])
    cos, sin = angles(positions)
    plan = tiles(2, starts, [3, 1], len(positions))
    qkv = torch.randn(6, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert gradcheck(lambda x: TiledAttention.apply(x, cos, sin, HEADS, plan, SCALE), (qkv,))
