"""What a LoRA layer adds to its weight, and what that costs in the metric of the Fisher's marginals, without ever
forming a matrix of the weight's size. Pure: factors in, tensors out. Knows nothing of modules or training.

Shapes: a layer has a weight W [out, in]; its update is s * B A with B [out, r], A [r, in].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terakoya.training.continual.fisher import precise


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank update s * B A."""

    a: Tensor
    """[r, in]"""
    b: Tensor
    """[out, r]"""
    scale: float

    def matrix(self) -> Tensor:
        """[out, in]"""
        return self.scale * self.b @ self.a


@dataclass(frozen=True, slots=True)
class Marginals:
    """Row and column sums of a Fisher F [out, in] of one weight. F_ij is taken to be rows_i * columns_j / trace."""

    rows: Tensor
    """[out]"""
    columns: Tensor
    """[in]"""

    def matrix(self) -> Tensor:
        """The diagonal Fisher they stand for, [out, in]; zeros where nothing was measured."""
        return torch.outer(self.rows, self.columns) * _inverse_trace(self.rows)


def squared_gradient_marginals(inputs: Tensor, deltas: Tensor) -> Marginals:
    """Return row and column sums of the elementwise square of each sequence's weight gradient, summed over sequences.

    ``inputs`` [sequences, tokens, in] go into the layer, ``deltas`` [sequences, tokens, out] are the gradient with
    respect to its output; a sequence's weight gradient is G = deltas^T inputs. As the row sums of G * G are the
    diagonal of G G^T, they follow from products of tokens x tokens: rows = (deltas * (X X^T deltas)).sum(0) and
    columns = (X * (deltas deltas^T X)).sum(0). Where G itself is cheaper (many tokens), it is formed, in the type
    the layer computed in; sums are float32 at least.
    """
    tokens, width = inputs.shape[-2:]
    height = deltas.shape[-1]
    kind = precise(deltas.dtype)
    if 2 * tokens * (width + height) > width * height:
        gradient = deltas.transpose(-2, -1) @ inputs.to(deltas.dtype)  # [sequences, out, in]
        squared = gradient.to(kind).square().sum(0)
        return Marginals(squared.sum(1), squared.sum(0))
    inputs, deltas = inputs.to(kind), deltas.to(kind)
    rows = deltas * (inputs @ inputs.transpose(-2, -1) @ deltas)  # [sequences, tokens, out]
    columns = inputs * (deltas @ deltas.transpose(-2, -1) @ inputs)
    return Marginals(rows.sum((0, 1)), columns.sum((0, 1)))


def penalty(now: Factors, anchor: Factors, marginals: Marginals) -> Tensor:
    """Return 1/2 sum_ij F_ij (D_ij)^2 of the move D = s B A - s* B* A*, a scalar.

    With Bt = [s B, -s* B*] and At = [A; A*], D = Bt At, and the sum is tr((Bt^T diag(rows) Bt)(At diag(columns) At^T))
    / trace: exact for this F, in O((out + in) r^2). It depends on the products alone, so (B R, R^-1 A) costs nothing.
    """
    left, right = _stacked(now, anchor)
    inner = left.T @ (marginals.rows[:, None] * left)  # [2r, 2r]
    outer = (right * marginals.columns) @ right.T
    return 0.5 * _inverse_trace(marginals.rows) * (inner * outer.T).sum()


def penalty_gradient(now: Factors, anchor: Factors, marginals: Marginals) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``penalty`` with respect to ``now.a`` [..., r, in] and ``now.b`` [..., out, r].

    Layers of the same shape may be stacked before the last two dimensions. With C = diag(columns), R = diag(rows) and n
    the scale over the trace, the gradient for b is n R D C A^T and for a it is n B^T R D C, where D is never formed.
    """
    norm = (now.scale * _inverse_trace(marginals.rows))[..., None, None]
    scaled = now.scale * now.b
    here, there = now.a * marginals.columns[..., None, :], anchor.a * marginals.columns[..., None, :]
    moved = scaled @ (norm * (here @ now.a.mT)) - (anchor.scale * anchor.b) @ (norm * (there @ now.a.mT))
    weighted = (marginals.rows[..., :, None] * now.b).mT  # [..., r, out]
    for_a = (norm * (weighted @ scaled)) @ here - (norm * (weighted @ (anchor.scale * anchor.b))) @ there
    return for_a, marginals.rows[..., :, None] * moved


def _stacked(now: Factors, anchor: Factors) -> tuple[Tensor, Tensor]:
    """[out, 2r] and [2r, in], whose product is the move."""
    return torch.cat([now.scale * now.b, -anchor.scale * anchor.b], dim=1), torch.cat([now.a, anchor.a])


def _inverse_trace(rows: Tensor) -> Tensor:
    trace = rows.sum(-1)
    return torch.where(trace > 0, trace.reciprocal(), torch.zeros_like(trace))
