"""Measures whether this device multiplies matrices faster in bfloat16 than in float32. Knows only shapes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

_TOKENS = 256
_MARGIN = 1.2
"""bfloat16 must be this much faster: its casts cost something too."""


@dataclass(frozen=True, slots=True)
class ComputeChoice:
    dtype: torch.dtype
    gflops_float32: float
    gflops_bfloat16: float

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.name, "gflops": [self.gflops_float32, self.gflops_bfloat16]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ComputeChoice:
        return cls(getattr(torch, fields["dtype"]), *fields["gflops"])


def choose_compute_type(device: torch.device, *, hidden: int, intermediate: int, seconds: float = 0.5) -> ComputeChoice:
    """Time a model-shaped product for up to ``seconds`` in each type and choose the faster."""
    speed = {dtype: _gflops(device, dtype, hidden, intermediate, seconds) for dtype in (torch.float32, torch.bfloat16)}
    faster = speed[torch.bfloat16] > _MARGIN * speed[torch.float32]
    return ComputeChoice(
        torch.bfloat16 if faster else torch.float32, round(speed[torch.float32], 1), round(speed[torch.bfloat16], 1)
    )


def _gflops(device: torch.device, dtype: torch.dtype, hidden: int, intermediate: int, seconds: float) -> float:
    left = torch.ones(_TOKENS, hidden, dtype=dtype, device=device)
    right = torch.ones(hidden, intermediate, dtype=dtype, device=device)
    left[:8] @ right  # the first product sets up kernels
    _wait(device)
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _TOKENS * hidden * intermediate / best / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
