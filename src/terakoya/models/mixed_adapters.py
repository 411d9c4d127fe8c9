"""Several LoRA adapters at work on one module at once: each row of a batch gets its own adapter's share. Knows PEFT's
layers; nothing of requests, caches or when rows come and go.

The adapters of a layer lie behind one another in two matrices, and PEFT's own parameters are views of them: no weight
is kept twice, and PEFT can still switch a single adapter on. Where most of a matrix is at work, one product computes
all adapters for all rows and a mask keeps each row's own; where little is, each adapter's rows are computed apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

_FEW_GROUPS = 2
"""So many adapters at once are computed apart in any case."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Packed:
    """The adapters of one layer, behind one another."""

    names: tuple[str, ...]
    a: Tensor
    """[ranks of all, in]"""
    b: Tensor
    """[ranks of all, out]"""
    spans: dict[str, Span]
    """Name -> its rows of both."""
    scalings: dict[str, float]


class MixedAdapters:
    """The adapters on one module. After any adapter has come or gone: ``pack``. Before each forward pass: ``use``."""

    def __init__(self) -> None:
        self._packed: dict[LoraLayer, _Packed] = {}
        self._rows: tuple[str | None, ...] = ()
        self._masks: dict[Any, Tensor] = {}

    def can_mix(self, module: nn.Module, name: str) -> bool:
        """Tell whether the adapter is a plain LoRA on linear layers: what a product of two matrices adds."""
        if not isinstance(module, PeftModel):
            return False
        config = module.peft_config[name]
        if config.modules_to_save or getattr(config, "trainable_token_indices", None):
            return False
        return all(
            # A router hands each expert some tokens of some rows: whose they are is not to be seen there.
            _is_plain(layer, name) and ".experts." not in place
            for place, layer in module.named_modules()
            if isinstance(layer, LoraLayer) and name in _names_on(layer)
        )

    def pack(self, module: nn.Module) -> None:
        """Lay the adapters of each layer behind one another; PEFT's parameters become views."""
        self._masks.clear()
        layers = _lora_layers(module) if isinstance(module, PeftModel) else []
        packed: dict[LoraLayer, _Packed] = {}
        for layer in layers:
            names = tuple(name for name in layer.lora_A if _is_plain(layer, name))
            before = self._packed.get(layer)
            packed[layer] = before if before is not None and before.names == names else _pack(layer, names)
            if layer not in self._packed:
                layer.register_forward_hook(self._add)
        self._packed = packed

    def use(self, rows: Sequence[str | None]) -> None:
        """Say which adapter each row of the next passes gets, None for the base alone; () leaves it to PEFT."""
        if tuple(rows) != self._rows:
            self._rows = tuple(rows)
            self._masks.clear()

    def _add(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """[rows, tokens, in] -> [rows, tokens, out], with what each row's adapter adds."""
        assert isinstance(layer, LoraLayer)  # none other has this hook
        packed = self._packed.get(layer)
        if packed is None or not self._rows:
            return None
        groups = _groups(self._rows, packed)
        if not groups:
            return None
        x, shape = inputs[0].to(packed.a.dtype), output.shape
        if x.dim() == 2:  # OPT's feed-forward, shared experts: the rows' tokens behind one another
            x, output = (each.reshape(len(self._rows), -1, each.shape[-1]) for each in (x, output))
        return self._added(x, output, packed, groups).reshape(shape)

    def _added(self, x: Tensor, output: Tensor, packed: _Packed, groups: dict[str, list[int]]) -> Tensor:
        """[rows, tokens, in] and [rows, tokens, out] -> [rows, tokens, out]"""
        low = min(packed.spans[name][0] for name in groups)
        high = max(packed.spans[name][1] for name in groups)
        at_work = sum(packed.spans[name][1] - packed.spans[name][0] for name in groups)
        if len(groups) <= _FEW_GROUPS or 2 * at_work < high - low:
            return _apart(x, output, packed, groups)
        mask = self._mask(packed, low, high, x)
        narrow = (x @ packed.a[low:high].t()) * mask  # [rows, tokens, ranks]
        added: Tensor = narrow @ packed.b[low:high]
        return output + added.to(output.dtype)

    def _mask(self, packed: _Packed, low: int, high: int, x: Tensor) -> Tensor:
        """[rows, 1, ranks]: a row's scaling where its own adapter is, else 0. One for all layers that are alike."""
        key = (low, high, tuple(packed.spans.items()), tuple(packed.scalings.items()))
        if key not in self._masks:
            mask = torch.zeros(len(self._rows), 1, high - low, dtype=x.dtype, device=x.device)
            for row, name in enumerate(self._rows):
                if name is not None and name in packed.spans:
                    start, end = packed.spans[name]
                    mask[row, 0, start - low : end - low] = packed.scalings[name]
            self._masks[key] = mask
        return self._masks[key]


def _apart(x: Tensor, output: Tensor, packed: _Packed, groups: dict[str, list[int]]) -> Tensor:
    for name, rows in groups.items():
        start, end = packed.spans[name]
        a, b, scaling = packed.a[start:end], packed.b[start:end], packed.scalings[name]
        if len(rows) == len(x):
            return output + ((x @ a.t()) @ b * scaling).to(output.dtype)
        added = ((x[rows] @ a.t()) @ b * scaling).to(output.dtype)
        output = output.index_add(0, torch.tensor(rows, device=x.device), added)
    return output


def _groups(rows: Sequence[str | None], packed: _Packed) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(rows):
        if name is not None and name in packed.spans:
            groups.setdefault(name, []).append(row)
    return groups


def _pack(layer: LoraLayer, names: tuple[str, ...]) -> _Packed:
    spans: dict[str, Span] = {}
    end = 0
    for name in names:
        start, end = end, end + layer.lora_A[name].weight.shape[0]
        spans[name] = (start, end)
    if not names:
        nothing = torch.empty(0, 0)
        return _Packed(names, nothing, nothing, spans, {})
    with torch.no_grad():
        a = torch.cat([layer.lora_A[name].weight for name in names])
        b = torch.cat([layer.lora_B[name].weight.t() for name in names])
        for name, (start, end) in spans.items():
            layer.lora_A[name].weight.data = a[start:end]
            layer.lora_B[name].weight.data = b[start:end].t()
    return _Packed(names, a, b, spans, {name: float(layer.scaling[name]) for name in names})


def _lora_layers(module: nn.Module) -> list[LoraLayer]:
    return [layer for layer in module.modules() if isinstance(layer, LoraLayer)]


def _names_on(layer: LoraLayer) -> set[str]:
    return {*layer.lora_A, *layer.lora_embedding_A}


def _is_finite(layer: LoraLayer, name: str) -> bool:
    """What is no number stays none when a mask multiplies it by 0: it would be in all rows."""
    return all(bool(torch.isfinite(part[name].weight).all()) for part in (layer.lora_A, layer.lora_B))


def _is_plain(layer: LoraLayer, name: str) -> bool:
    return (
        name in layer.lora_A
        and type(layer.lora_A[name]) is nn.Linear
        and layer.lora_B[name].bias is None
        and name not in layer.lora_magnitude_vector
        and name not in layer.lora_variant
        and _is_finite(layer, name)
    )
