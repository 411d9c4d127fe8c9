"""Linear layers that read the same input, with their LoRA updates, as one product each way. Knows layers of PyTorch
and PEFT; not where in a model they stand.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = 0
"""Of all optimizers of this process: fused ones change weights without counting up their versions."""


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


def state_of(weights: Sequence[Tensor]) -> object:
    """Return what differs once any of these weights may have changed."""
    trained = any(weight.requires_grad for weight in weights)
    return _steps if trained else None, [(weight.data_ptr(), weight._version) for weight in weights]


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a linear one, or one with a single LoRA update that nothing else was done to."""
    if type(layer) is nn.Linear:
        return True
    if type(layer) is not LoraLinear or type(layer.base_layer) is not nn.Linear or layer.merged:
        return False
    lora = cast(Any, layer)
    names = list(lora.lora_A)
    return (
        len(names) == 1
        and list(lora.active_adapters) == names
        and not lora.lora_variant
        and not lora.lora_bias[names[0]]
        and not lora.fan_in_fan_out
        and isinstance(lora.lora_dropout[names[0]], nn.Identity)
    )


class LinearGroup:
    """Layers with one input: (x [tokens, in]) -> their outputs side by side, [tokens, sum of out].

    Frozen weights are moved into one tensor, of which the layers then hold views. Trained ones stay the float32
    masters they are; the products read copies in the compute type, made anew when a master has changed.
    """

    def __init__(self, layers: Sequence[nn.Module], dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._bases: list[Any] = [getattr(layer, "base_layer", layer) for layer in layers]
        self._adapted = [layer for layer in layers if isinstance(layer, LoraLinear)]
        if self._adapted and len(self._adapted) != len(layers):
            raise ValueError("either all layers of a group have a LoRA update or none has")
        self._trains_base = self._bases[0].weight.requires_grad
        self._widths = [base.out_features for base in self._bases]
        self._biased = self._bases[0].bias is not None
        self._lock = threading.Lock()
        self._seen: object = None
        self._weights: list[Tensor] = []
        self._a: Tensor | None = None
        self._b: Tensor | None = None
        self._scales: list[float] = []

    def trained(self) -> list[nn.Parameter]:
        """The masters behind this group that take a gradient."""
        masters: list[Any] = [*self._base_masters(), *self._updates()]
        masters += [base.bias for base in self._bases]
        return [each for each in masters if each is not None and each.requires_grad]

    def __call__(self, x: Tensor) -> Tensor:
        self._refresh()
        masters = self._base_masters()
        weights: Sequence[Tensor] = self._weights
        biases: Sequence[Tensor] = [base.bias for base in self._bases] if self._biased else []
        if self._trains_base and torch.is_grad_enabled() and self._weights[0].dtype != masters[0].dtype:
            weights = [_Joined.apply(self._weights[0], *masters)]  # type: ignore[no-untyped-call]
        bias = torch.cat([each.to(self._dtype) for each in biases]) if biases else None
        a = b = None
        if self._adapted and not self._adapted[0].disable_adapters:
            a, b = self._a, self._b
            if torch.is_grad_enabled():
                a, b = _Updates.apply(a, b, self._scales, self._widths, *self._updates())  # type: ignore[no-untyped-call]
        return cast(Tensor, _Product.apply(x, a, b, bias, *weights))  # type: ignore[no-untyped-call]

    def _base_masters(self) -> list[nn.Parameter]:
        return [base.weight for base in self._bases]

    def _updates(self) -> list[nn.Parameter]:
        """A of each layer, then B of each layer."""
        parts: list[nn.Parameter] = []
        for kind in ("lora_A", "lora_B"):
            parts += [next(iter(getattr(layer, kind).values())).weight for layer in self._adapted]
        return parts

    def _refresh(self) -> None:
        """Bring the copies up to date with the masters; two threads may ask at once."""
        if self._seen == state_of([*self._base_masters(), *self._updates()]):
            return
        with self._lock, torch.no_grad():
            if self._seen == state_of([*self._base_masters(), *self._updates()]):
                return
            self._copy_bases()
            if self._adapted:
                self._copy_updates()
            self._seen = state_of([*self._base_masters(), *self._updates()])

    def _copy_bases(self) -> None:
        masters = self._base_masters()
        if not self._trains_base:
            self._weights = [_join(masters, self._dtype)]
        elif masters[0].dtype == self._dtype:
            self._weights = list(masters)
        elif self._weights:
            _fill(self._weights[0], masters)
        else:
            self._weights = [torch.cat([master.to(self._dtype) for master in masters])]

    def _copy_updates(self) -> None:
        """A of all layers below each other; B of all on the diagonal, its scale multiplied in."""
        updates = self._updates()
        half = len(updates) // 2
        names = [next(iter(layer.lora_A)) for layer in self._adapted]
        self._scales = [float(layer.scaling[name]) for layer, name in zip(self._adapted, names, strict=True)]
        ranks = [each.shape[0] for each in updates[:half]]
        if self._a is None or self._b is None:
            self._a = updates[0].new_empty(sum(ranks), updates[0].shape[1], dtype=self._dtype)
            self._b = updates[0].new_zeros(sum(self._widths), sum(ranks), dtype=self._dtype)
        _fill(self._a, updates[:half])
        diagonal = _diagonal(self._b, self._widths, ranks)
        for piece, master, scale in zip(diagonal, updates[half:], self._scales, strict=True):
            torch.mul(master, scale, out=piece) if piece.dtype == master.dtype else piece.copy_(master * scale)


class _Product(torch.autograd.Function):
    """x W' + bias + (x A') B', with W given in one piece or in several."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor | None, b: Tensor | None, bias: Tensor | None, *weights: Tensor
    ) -> Tensor:
        first = linear(x, weights[0], bias if len(weights) == 1 else None)
        out = first
        if len(weights) > 1:
            out = torch.cat([first, *(linear(x, weight) for weight in weights[1:])], dim=-1)
            if bias is not None:
                out += bias
        h = None
        if a is not None and b is not None:
            h = x @ a.t()  # [tokens, ranks]
            out.addmm_(h, b.t())
        ctx.save_for_backward(x, h, a, b, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, h, a, b, *weights = ctx.saved_tensors
        for_x = for_a = for_b = for_bias = None
        pieces = [each.t() for each in _rows(gradient.t(), [weight.shape[0] for weight in weights])]
        if ctx.needs_input_grad[0]:
            for_x = pieces[0] @ weights[0]
            for piece, weight in zip(pieces[1:], weights[1:], strict=True):
                for_x.addmm_(piece, weight)
        if a is not None:
            for_h = gradient @ b
            if for_x is not None:
                for_x.addmm_(for_h, a)
            if ctx.needs_input_grad[1]:
                for_a, for_b = for_h.t() @ x, gradient.t() @ h
        if ctx.needs_input_grad[3]:
            for_bias = gradient.sum(0)
        for_weights = [
            piece.t() @ x if needed else None for piece, needed in zip(pieces, ctx.needs_input_grad[4:], strict=True)
        ]
        return for_x, for_a, for_b, for_bias, *for_weights


class _Joined(torch.autograd.Function):
    """Stand for trained weights by their copy in the compute type; hands its gradient on to the masters."""

    @staticmethod
    def forward(ctx: Any, copy: Tensor, *masters: Tensor) -> Tensor:
        ctx.heights = [master.shape[0] for master in masters]
        ctx.master_dtype = masters[0].dtype
        return copy.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_rows(gradients[0].to(ctx.master_dtype), ctx.heights)


class _Updates(torch.autograd.Function):
    """The same for the A and B of LoRA."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scales: list[float], widths: list[int], *masters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.scales, ctx.widths, ctx.master_dtype = scales, widths, masters[0].dtype
        ctx.ranks = [master.shape[0] for master in masters[: len(widths)]]
        return a.detach(), b.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        for_a, for_b = gradients
        rows = _rows(for_a.to(ctx.master_dtype), ctx.ranks)
        diagonal = _diagonal(for_b.to(ctx.master_dtype), ctx.widths, ctx.ranks)
        blocks = [piece * scale for piece, scale in zip(diagonal, ctx.scales, strict=True)]
        return None, None, None, None, *rows, *blocks


def _rows(matrix: Tensor, heights: Sequence[int]) -> list[Tensor]:
    """The matrix cut into pieces of so many rows, as views."""
    ends = list(accumulate(heights))
    return [matrix[end - height : end] for end, height in zip(ends, heights, strict=True)]


def _diagonal(matrix: Tensor, heights: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """The blocks on the diagonal, as views."""
    blocks, row, column = [], 0, 0
    for height, width in zip(heights, widths, strict=True):
        blocks.append(matrix[row : row + height, column : column + width])
        row, column = row + height, column + width
    return blocks


def _fill(joined: Tensor, parts: Sequence[Tensor]) -> None:
    for place, part in zip(_rows(joined, [part.shape[0] for part in parts]), parts, strict=True):
        place.copy_(part)


def _join(weights: Sequence[nn.Parameter], dtype: torch.dtype) -> Tensor:
    """Return frozen weights as one tensor, of which each becomes a view: nothing is held twice."""
    first = weights[0]
    if first.dtype != dtype:
        return torch.cat([weight.detach().to(dtype) for weight in weights])
    height = sum(weight.shape[0] for weight in weights)
    offset, adjacent = first.storage_offset(), True
    for weight in weights:
        adjacent &= weight.is_contiguous() and weight.storage_offset() == offset
        adjacent &= weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        offset += weight.numel()
    if adjacent:
        return first.detach().as_strided((height, first.shape[1]), (first.shape[1], 1))
    joined = torch.cat([weight.detach() for weight in weights])
    for weight, view in zip(weights, _rows(joined, [weight.shape[0] for weight in weights]), strict=True):
        weight.data = view
    return joined
