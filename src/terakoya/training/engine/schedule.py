"""The learning rate at each step: a linear warm-up, then a decay. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, assert_never

Kind = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    peak: float
    total_steps: int
    warmup: float
    """Share of the steps."""
    kind: Kind = "cosine"

    @property
    def warmup_steps(self) -> int:
        return math.ceil(self.total_steps * self.warmup)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, from 1 to ``total_steps``: peak at the end of warm-up, then towards 0."""
        warmup = self.warmup_steps
        if step <= warmup:
            return self.peak * step / warmup
        progress = (step - warmup - 1) / max(self.total_steps - warmup, 1)
        if self.kind == "cosine":
            return self.peak * 0.5 * (1 + math.cos(math.pi * progress))
        if self.kind == "linear":
            return self.peak * (1 - progress)
        if self.kind == "constant":
            return self.peak
        assert_never(self.kind)
