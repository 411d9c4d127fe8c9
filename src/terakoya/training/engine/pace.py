"""How fast a run goes, told as events: steps, at most five a second, never losing the last. Knows nothing of the
computation.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from terakoya.domain.events import EventType, Observer
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Position

_STEP_EVENT_SECONDS = 0.2
_WINDOW = 20


class Pace:
    def __init__(self, observer: Observer, plan: StepPlan, position: Position, lengths: Sequence[int]) -> None:
        """``lengths``: tokens of each row that the plan knows. Time goes by tokens, and steps differ in them."""
        self._observer = observer
        self._plan = plan
        self._remaining = plan.tokens(lengths) - position.trained_tokens
        self._recent: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._tokens = position.trained_tokens
        self._held_back: dict[str, Any] | None = None
        self._last_step_event = -1e9

    def step(
        self,
        position: Position,
        seconds: float,
        *,
        loss: float,
        grad_norm: float,
        learning_rate: float,
        **facts: float,
    ) -> None:
        """``facts`` are the objective's own, told as they are."""
        self._recent.append((seconds, position.trained_tokens - self._tokens))
        self._remaining -= position.trained_tokens - self._tokens
        self._tokens = position.trained_tokens
        rate = sum(tokens for _, tokens in self._recent) / sum(each for each, _ in self._recent)
        self._held_back = {
            "step": position.step,
            "total_steps": self._plan.total_steps,
            "epoch": round(position.step / self._plan.steps_per_epoch, 4),
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "tokens_per_second": round(rate, 1),
            "eta_seconds": round(self._remaining / rate, 1),
            **facts,
        }
        now = time.monotonic()
        if now - self._last_step_event >= _STEP_EVENT_SECONDS:
            self.flush()
            self._last_step_event = now

    def flush(self) -> None:
        """Send the newest step if it was held back."""
        if self._held_back is not None:
            self._observer.notify(EventType.STEP, **self._held_back)
            self._held_back = None
