"""What is looked at between the steps of a run: the loss on some held-out rows, answers to fixed prompts, and
whether to stop early. Changes nothing that the next step depends on; knows nothing of optimizers or checkpoints.

Weights, optimizer and random state are only read. Whether to stop follows from losses alone, never from the clock,
so that a resumed run decides alike; only how often samples are written follows from what they cost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import TrainingError
from terakoya.models.evaluating import evaluating
from terakoya.models.generation import generate_batch, stop_ids_of
from terakoya.models.label_forward import LabelForward
from terakoya.models.length_batches import length_batches
from terakoya.training.engine.checkpoint import Position
from terakoya.training.engine.evaluation_plan import EvaluationPlan
from terakoya.training.engine.loop import Seen, Stop
from terakoya.training.sampling import Sampling

SAMPLE_SHARE = 0.01
"""Of the training time that samples nobody asked for may take."""
_MOST_BATCH_TOKENS = 2048
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    patience: int
    min_delta: float

    def judge(self, position: Position, loss: float) -> tuple[Position, bool]:
        """Return the position with the loss taken in, and whether it is the best so far."""
        if position.best_loss is None or loss < position.best_loss - self.min_delta:
            return replace(position, best_step=position.step, best_loss=loss, evaluations_since_best=0), True
        return replace(position, evaluations_since_best=position.evaluations_since_best + 1), False

    def is_over(self, position: Position) -> bool:
        return position.evaluations_since_best >= self.patience


class HeldoutWatch:
    """The loop's Watch: scores some held-out rows when the plan says so, and answers the sample prompts."""

    def __init__(
        self,
        *,
        module: nn.Module,
        tokenizer: Any,
        forward: LabelForward,
        heldout: Sequence[EncodedExample],
        plan: EvaluationPlan,
        sampling: Sampling,
        early_stopping: EarlyStopping | None,
        autocast: Callable[[], AbstractContextManager[Any]],
        observer: Observer,
        requested_action: Callable[[], str | None],
    ) -> None:
        self._module = module
        self._tokenizer = tokenizer
        self._forward = forward
        self._rows = [heldout[index] for index in plan.rows]
        self._plan = plan
        self._sampling = sampling
        self._early_stopping = early_stopping
        self._autocast = autocast
        self._observer = observer
        self._requested_action = requested_action
        self._sampling_seconds = 0.0
        self._last_sample_seconds = 0.0

    def after_step(self, position: Position) -> Seen:
        """Look if it is time. Raises: TrainingError if the loss is no number."""
        is_best, stop = False, None
        if self._plan.is_due(position.step) and position.evaluated_step < position.step:
            started = time.monotonic()
            with evaluating(self._module):
                loss = self._evaluate(position)
                if isinstance(loss, Stop):
                    return Seen(position, loss)
                position = replace(position, evaluated_step=position.step)
                if self._early_stopping is not None:
                    position, is_best = self._early_stopping.judge(position, loss)
                self._tell(position, loss, is_best)
                self._sample(position)
            spent = position.watching_seconds + time.monotonic() - started
            position = replace(position, watching_seconds=spent)
        if self._early_stopping is not None and self._early_stopping.is_over(position):
            stop = Stop.EARLY
        return Seen(position, stop, is_best)

    def _evaluate(self, position: Position) -> float | Stop:
        """Return the loss per label; or what was asked for meanwhile, and then nothing was looked at."""
        losses: list[float] = []
        # no_grad, not inference_mode: what a model caches on the way must still serve the next backward pass.
        with torch.no_grad(), self._autocast():
            budget = min(position.budget_tokens or _MOST_BATCH_TOKENS, _MOST_BATCH_TOKENS)
            for batch in length_batches([len(row.input_ids) for row in self._rows], budget):
                if (action := self._requested_action()) is not None:
                    return Stop(action)
                losses += self._forward.predict([self._rows[index] for index in batch])[0].tolist()
        loss = math.fsum(losses) / len(losses)
        if not math.isfinite(loss):
            raise TrainingError(
                f"after step {position.step} the loss on held-out rows is {loss}: the weights have diverged; "
                "a lower learning rate usually helps"
            )
        return loss

    def _tell(self, position: Position, loss: float, is_best: bool) -> None:
        best = {"is_best": is_best, "best_step": position.best_step} if self._early_stopping is not None else {}
        self._observer.notify(
            EventType.EVAL,
            when="during",
            split="heldout",
            step=position.step,
            loss=loss,
            examples=len(self._rows),
            **best,
        )

    def _sample(self, position: Position) -> None:
        sampling = self._sampling
        due = self._sampling_seconds + self._last_sample_seconds
        if not sampling.prompts:
            return
        if not sampling.is_asked_for and self._last_sample_seconds and due > SAMPLE_SHARE * position.training_seconds:
            return
        started = time.monotonic()
        stop_ids = stop_ids_of(self._module, self._tokenizer)
        with self._autocast():
            answers = generate_batch(
                self._module,
                self._tokenizer,
                [prompt.ids for prompt in sampling.prompts],
                max_new_tokens=sampling.max_new_tokens,
                stop_ids=stop_ids,
            )
        samples = [
            {
                "prompt": prompt.text[:_SHOWN_CHARACTERS],
                "text": self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
                "reference": prompt.reference and prompt.reference[:_SHOWN_CHARACTERS],
                "is_cut": len(ids) == sampling.max_new_tokens,
            }
            for prompt, ids in zip(sampling.prompts, answers, strict=True)
        ]
        self._observer.notify(EventType.SAMPLE, step=position.step, samples=samples)
        self._last_sample_seconds = time.monotonic() - started
        self._sampling_seconds += self._last_sample_seconds
