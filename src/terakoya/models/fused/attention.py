"""Causal attention of many rows that lie end to end in one flat sequence, behind a prefix they share, in pieces that
fit into a processor's cache: short rows together, long ones cut by queries. Knows tensors and a layout of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from terakoya.models.fused.elementwise import rounded_up, wide

_SHORT = 64
"""Rows of at most so many own tokens are computed together, padded to the longest of them."""
_LENGTHS = 16
"""Their tile is so long, or a multiple: see ``rounded_up``."""
_QUERIES = 128
"""Queries at once of a longer row."""
_KEPT_KEYS = 256
"""Probabilities over at most so many keys are kept for the backward pass; longer ones are computed again."""


@dataclass(frozen=True, slots=True)
class Heads:
    queries: int
    keys: int
    width: int

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.queries // self.keys


@dataclass(frozen=True, slots=True)
class Tile:
    """Queries computed together: of several short rows, or a stretch of one. All see ``prefix`` keys, then their own
    row's up to themselves."""

    prefix: int
    rows: Tensor | None
    """[rows, longest]: flat positions, a row's padding points behind the last token; None for a stretch."""
    row_start: int
    start: int
    end: int
    """Of a stretch: where its row begins, and its queries, in the flat sequence."""
    hidden: Tensor
    """[rows or 1, 1, queries, last keys], bool: what a query may not see."""

    @property
    def keys(self) -> int:
        own = self.end - self.row_start if self.rows is None else self.rows.shape[1]
        return self.prefix + own


def tiles(prefix: int, starts: Sequence[int], lengths: Sequence[int], tokens: int) -> list[Tile]:
    """Cut the attention of rows at these flat positions into tiles; ``tokens``: of the flat sequence."""
    rows = list(zip(starts, lengths, strict=True))
    found = [tile for start, length in rows if length > _SHORT for tile in _stretches(prefix, start, length)]
    short = [row for row in rows if row[1] <= _SHORT]
    if prefix and (prefix > _SHORT or not short):
        found += _stretches(0, 0, prefix)
    elif prefix:
        short.insert(0, (0, prefix))
    if short:
        found.append(_together(prefix, short, tokens))
    return found


def _stretches(prefix: int, start: int, length: int) -> Iterator[Tile]:
    for first in range(start, start + length, _QUERIES):
        end = min(first + _QUERIES, start + length)
        yield Tile(prefix, None, start, first, end, _later(end - first)[None, None])


def _together(prefix: int, rows: Sequence[tuple[int, int]], tokens: int) -> Tile:
    """One tile of short rows; the prefix may be one of them, and then has no prefix."""
    starts, lengths = torch.tensor(rows).T.unsqueeze(-1)  # [rows, 1] each
    longest = rounded_up(int(lengths.max()), _LENGTHS)
    offsets = torch.arange(longest)
    places = torch.where(offsets < lengths, starts + offsets, tokens)
    hidden = pad(_later(longest), (prefix, 0)).repeat(len(rows), 1, 1)
    if prefix and rows[0][0] == 0:
        hidden[0, :, :prefix] = True
    return Tile(prefix, places, 0, 0, 0, hidden.unsqueeze(1))


@lru_cache(maxsize=2 * _QUERIES)
def _later(count: int) -> Tensor:
    """[count, count], bool: what comes after each token."""
    return torch.ones(count, count, dtype=torch.bool).triu_(1)


class TiledAttention(torch.autograd.Function):
    """qkv [tokens, (queries + 2 * keys) * width], cos and sin [tokens, width / 2] -> [tokens, queries * width].

    Scores and softmax in float32. Rotary positions as Llama has them: the first half of a head's width is turned
    against the second (Su et al. 2021, "RoFormer", in the arrangement of GPT-NeoX).
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads, plan: Sequence[Tile], scale: float
    ) -> Tensor:
        tokens = qkv.shape[0]
        q, k, v = _split(qkv, cos, sin, heads, scale)
        out = qkv.new_zeros(heads.keys, heads.group, tokens + 1, heads.width)
        kept: list[Tensor | None] = []
        for tile in plan:
            tile_v = _keys_of(v, tile)
            weights = _probabilities(_queries_of(q, tile), _keys_of(k, tile), tile).to(qkv.dtype)
            _put(out, torch.bmm(weights, tile_v), tile)
            kept.append(weights if tile.keys <= _KEPT_KEYS and ctx.needs_input_grad[0] else None)
        ctx.save_for_backward(qkv, cos, sin)
        ctx.heads, ctx.plan, ctx.scale, ctx.kept = heads, plan, scale, kept
        return out[:, :, :tokens].permute(2, 0, 1, 3).reshape(tokens, heads.queries * heads.width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, cos, sin = ctx.saved_tensors
        heads, dtype, tokens = ctx.heads, qkv.dtype, qkv.shape[0]
        q, k, v = _split(qkv, cos, sin, heads, ctx.scale)
        narrow_q, narrow_k = q.to(dtype), k.to(dtype)
        shape = (tokens, heads.keys, heads.group, heads.width)
        gradient = qkv.new_zeros(heads.keys, heads.group, tokens + 1, heads.width)
        gradient[:, :, :tokens] = gradients[0].view(shape).permute(1, 2, 0, 3)
        for_q = torch.zeros_like(q)
        for_k, for_v = torch.zeros_like(k), torch.zeros_like(k)
        for tile, weights in zip(ctx.plan, ctx.kept, strict=True):
            if weights is None:
                weights = _probabilities(_queries_of(q, tile), _keys_of(k, tile), tile).to(dtype)
            tile_gradient = _queries_of(gradient, tile)
            _add(for_v, torch.bmm(weights.transpose(1, 2), tile_gradient), tile)
            for_weights = torch.bmm(tile_gradient, _keys_of(v, tile).transpose(1, 2))
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, dtype)
            _put(for_q, torch.bmm(for_scores, _keys_of(narrow_k, tile)), tile)
            _add(for_k, torch.bmm(for_scores.transpose(1, 2), _queries_of(narrow_q, tile)), tile)
        result = torch.empty_like(qkv)
        parts = result.view(tokens, -1, heads.width).transpose(0, 1)
        both = heads.queries + heads.keys
        turned = torch.cat([for_q.flatten(0, 1)[:, :tokens].mul_(ctx.scale), for_k[:, :tokens]])
        parts[:both] = _turn(turned, cos, -sin)
        parts[both:] = for_v[:, :tokens]
        return result, None, None, None, None, None


def _split(qkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return q [key heads, group, tokens + 1, width], k and v [key heads, tokens + 1, width]; zeros in the last place.

    q is scaled, q and k are turned and in float32.
    """
    tokens = qkv.shape[0]
    parts = qkv.view(tokens, -1, heads.width).transpose(0, 1)
    both = heads.queries + heads.keys
    turned = qkv.new_zeros(both, tokens + 1, heads.width, dtype=wide(qkv.dtype))
    turned[:, :tokens] = _turn(parts[:both].to(turned.dtype), cos, sin)
    q, k = turned[: heads.queries], turned[heads.queries :]
    v = qkv.new_zeros(heads.keys, tokens + 1, heads.width)
    v[:, :tokens] = parts[both:]
    return q.mul_(scale).view(heads.keys, heads.group, tokens + 1, heads.width), k, v


def _turn(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """states [heads, tokens, width], turned by the angle of each token and dimension."""
    first, second = states.chunk(2, dim=-1)
    turned = torch.empty_like(states, memory_format=torch.contiguous_format)
    low, high = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=low).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=high).addcmul_(first, sin)
    return turned


def _probabilities(queries: Tensor, keys: Tensor, tile: Tile) -> Tensor:
    """[rows * key heads, group * queries, keys], in the wide type."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    rows, _, count, width = tile.hidden.shape
    scores.view(rows, -1, count, scores.shape[2])[..., -width:].masked_fill_(tile.hidden, float("-inf"))
    return torch.softmax(scores, -1)


def _queries_of(states: Tensor, tile: Tile) -> Tensor:
    """states [key heads, group, tokens + 1, width] -> [rows * key heads, group * queries, width]."""
    if tile.rows is None:
        return states[:, :, tile.start : tile.end].flatten(1, 2)
    rows, longest = tile.rows.shape
    keys, group, _, width = states.shape
    chosen = states.index_select(2, tile.rows.flatten()).view(keys, group, rows, longest, width)
    return chosen.permute(2, 0, 1, 3, 4).reshape(rows * keys, group * longest, width)


def _keys_of(states: Tensor, tile: Tile) -> Tensor:
    """states [key heads, tokens + 1, width] -> [rows * key heads, keys, width], the prefix in front."""
    keys, _, width = states.shape
    if tile.rows is None:
        own = states[:, tile.row_start : tile.end]
        return torch.cat([states[:, : tile.prefix], own], dim=1) if tile.prefix else own
    rows, longest = tile.rows.shape
    own = states.index_select(1, tile.rows.flatten()).view(keys, rows, longest, width).transpose(0, 1)
    if tile.prefix:
        own = torch.cat([states[:, : tile.prefix].expand(rows, -1, -1, -1), own], dim=2)
    return own.reshape(rows * keys, tile.keys, width)


def _put(states: Tensor, found: Tensor, tile: Tile) -> None:
    """Write what was found for a tile's queries to their places."""
    keys, group, _, width = states.shape
    if tile.rows is None:
        states[:, :, tile.start : tile.end] = found.view(keys, group, -1, width)
        return
    rows, longest = tile.rows.shape
    by_head = found.view(rows, keys, group, longest, width).permute(1, 2, 0, 3, 4).flatten(2, 3)
    states.index_copy_(2, tile.rows.flatten(), by_head.to(states.dtype))


def _add(states: Tensor, found: Tensor, tile: Tile) -> None:
    """Add what was found for a tile's keys at their places."""
    keys, _, width = states.shape
    if tile.rows is None:
        if tile.prefix:
            states[:, : tile.prefix] += found[:, : tile.prefix]
        states[:, tile.row_start : tile.end] += found[:, tile.prefix :]
        return
    rows = tile.rows.shape[0]
    by_head = found.view(rows, keys, tile.keys, width).transpose(0, 1)
    if tile.prefix:
        states[:, : tile.prefix] += by_head[:, :, : tile.prefix].sum(1, dtype=states.dtype)
    own = by_head[:, :, tile.prefix :].flatten(1, 2).to(states.dtype)
    states.index_add_(1, tile.rows.flatten(), own)
