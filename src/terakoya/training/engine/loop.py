"""The training loop, top to bottom: examples of a step -> micro-batches -> the objective's loss -> backward -> clip ->
AdamW -> events, checkpoints, requests to stop. Knows modules and rows; not strategies, datasets or reports.

Each micro-batch's loss is its share of the step's, such as (sum of label losses) / (labels of the step): how the step
was cut into micro-batches changes rounding only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from terakoya.data.token_store import lengths_of
from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import DoesNotFit, TrainingError
from terakoya.models.label_forward import LabelForward
from terakoya.models.packing import Row, shared_prefix
from terakoya.training.continual.regulariser import Regulariser
from terakoya.training.engine.batching import StepPlan, lanes_of, micro_batches
from terakoya.training.engine.checkpoint import Checkpoints, Position
from terakoya.training.engine.lanes import Lanes
from terakoya.training.engine.pace import Pace
from terakoya.training.engine.schedule import Schedule
from terakoya.training.objectives.objective import MicroBatch, Objective, Share, StepSize

_NAMED_ROWS = 10


class Stop(StrEnum):
    """Why the loop returned."""

    COMPLETED = "completed"
    CANCEL = "cancel"
    FINISH = "finish"
    PAUSE = "pause"
    EARLY = "early_stopping"
    MEMORY = "out_of_memory"
    """Memory runs low: there is time for a checkpoint."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the model between two steps led to."""

    position: Position
    stop: Stop | None = None
    is_best: bool = False
    """The weights are the best so far, and worth a checkpoint."""


class Watch(Protocol):
    """Looks at the model between two steps, and leaves weights, optimizer and random state as they are."""

    def after_step(self, position: Position) -> Seen: ...


@dataclass(frozen=True, slots=True)
class LoopResult:
    stop: Stop
    position: Position


class TrainedRow(Row, Protocol):
    @property
    def row(self) -> int:
        """Line in the uploaded file."""
        ...


@dataclass(frozen=True, slots=True)
class Gradient:
    """What a step's micro-batches added up to, beside the gradient in the parameters: scalars on the device."""

    loss: Tensor
    facts: dict[str, Tensor]


class TrainingLoop:
    """Runs from a position to the end of the plan, or until asked to stop."""

    def __init__(
        self,
        *,
        module: nn.Module,
        parameters: dict[str, nn.Parameter],
        rows: Sequence[TrainedRow],
        objective: Objective,
        forward: LabelForward,
        plan: StepPlan,
        schedule: Schedule,
        accelerator: Accelerator,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        checkpoints: Checkpoints,
        checkpoint_seconds: float,
        observer: Observer,
        requested_action: Callable[[], str | None],
        watch: Watch | None = None,
        regulariser: Regulariser | None = None,
        lanes: int = 1,
    ) -> None:
        self.module = module
        self.parameters = parameters
        self.regulariser = regulariser
        self.objective = objective
        self.rows, self.rows_per_example = rows, objective.encoding.rows_per_example
        self.lengths: list[int] = lengths_of(rows).reshape(-1, self.rows_per_example).sum(1).tolist()
        self.longest = max(self.lengths)
        self.forward = forward
        self.plan = plan
        self.schedule = schedule
        self.accelerator = accelerator
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.checkpoints = checkpoints
        self.checkpoint_seconds = checkpoint_seconds
        self.observer = observer
        self.requested_action = requested_action
        self.watch = watch
        self.lanes = Lanes(lanes, list(parameters.values()))
        self.saved_step = 0

    def run(self, position: Position) -> LoopResult:
        """Take the remaining steps. Raises: TrainingError when the loss is no number or nothing fits into memory."""
        self.module.train()
        pace = Pace(self.observer, self.plan, position, self.lengths)
        saved = time.monotonic()
        self.saved_step = position.step
        seen = self._look(position)  # what a stop kept it from, before it goes on
        position, stop = seen.position, seen.stop or Stop.COMPLETED
        if seen.is_best:
            self._save(position)
        for step in range(position.step + 1, self.plan.total_steps + 1):
            if stop is not Stop.COMPLETED:
                break
            started = time.monotonic()
            taken = self._take_step(step, position)
            if isinstance(taken, Stop):
                stop = taken
                break
            facts, position = taken
            seconds = time.monotonic() - started
            position = replace(position, training_seconds=position.training_seconds + seconds)
            pace.step(position, seconds, learning_rate=self.schedule.rate(step), **facts)
            seen = self._look(position)
            position, stop = seen.position, seen.stop or stop
            if seen.is_best or self.plan.ends_epoch(step) or time.monotonic() - saved > self.checkpoint_seconds:
                self._save(position)
                saved = time.monotonic()
        pace.flush()
        if position.step > self.saved_step:
            self._save(position)
        return LoopResult(stop, position)

    def _look(self, position: Position) -> Seen:
        return Seen(position) if self.watch is None else self.watch.after_step(position)

    def _take_step(self, step: int, position: Position) -> tuple[dict[str, float], Position] | Stop:
        """Take one optimizer step, with a smaller micro-batch after each time the GPU's memory does not suffice."""
        chosen = self.plan.rows_of(step)
        while True:
            budget = position.budget_tokens or self.longest
            try:
                self._seed(step)
                outcome = self._accumulate(chosen, budget)
            except torch.cuda.OutOfMemoryError:
                position = replace(position, budget_tokens=self._smaller(budget, chosen, step))
                continue
            if isinstance(outcome, Stop):
                self.optimizer.zero_grad(set_to_none=True)
                return outcome
            facts = self._update(step, outcome, chosen)
            tokens = sum(self.lengths[example] for example in chosen)
            return facts, replace(position, step=step, trained_tokens=position.trained_tokens + tokens)

    def _accumulate(self, chosen: Sequence[int], budget: int) -> Gradient | Stop:
        """Add up the gradient of a step's loss; return that loss and what else the objective tells of the step."""
        examples = {number: self._example(number) for number in chosen}
        size = StepSize(len(chosen), sum(map(self.objective.count_labels, examples.values())))
        rows = [row for example in examples.values() for row in example]
        shared = shared_prefix(rows) if self.forward.shares_prefix else 0
        totals: dict[str, Tensor] = {}
        lanes = self.lanes
        room = budget - shared * (lanes.count - 1)  # every lane computes the prefix
        for batch in micro_batches(chosen, self.lengths, shared=shared, budget_tokens=room):
            if (action := self.requested_action()) is not None:
                return Stop(action)
            parts = [
                MicroBatch(part, [examples[number] for number in part])
                for part in lanes_of(batch, self.lengths, count=lanes.count)
            ]
            for share in lanes.backward([partial(self._share, part, size) for part in parts]):
                for name, value in ({"loss": share.loss.detach()} | dict(share.facts)).items():
                    totals[name] = totals[name] + value if name in totals else value
        return Gradient(totals.pop("loss"), totals)

    def _example(self, number: int) -> Sequence[TrainedRow]:
        """One example's rows."""
        start = number * self.rows_per_example
        return self.rows[start : start + self.rows_per_example]

    def _share(self, batch: MicroBatch, size: StepSize) -> Share:
        with self.accelerator.autocast():
            return self.objective.share(self.forward, batch, size)

    def _update(self, step: int, gradient: Gradient, chosen: Sequence[int]) -> dict[str, float]:
        """Clip, step, and only then look at the numbers: one wait for the device per step."""
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.max_grad_norm)
        if self.regulariser is not None:
            self.regulariser.add_grad_(self.parameters, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        told = {"loss": gradient.loss, "grad_norm": norm, **gradient.facts}
        values = torch.stack([torch.as_tensor(value, dtype=torch.float32) for value in told.values()]).tolist()
        facts = dict(zip(told, values, strict=True))
        if not (math.isfinite(facts["loss"]) and math.isfinite(facts["grad_norm"])):
            raise TrainingError(
                f"at step {step} the loss was {facts['loss']} and the gradient norm {facts['grad_norm']}, so training "
                f"cannot go on; {self._kept()}. The step's rows are {self._named(chosen)}. "
                f"A learning rate below {self.schedule.peak:g} usually helps"
            )
        return facts

    def _kept(self) -> str:
        return f"the checkpoint of step {self.saved_step} is kept" if self.saved_step else "no checkpoint was due yet"

    def _named(self, chosen: Sequence[int]) -> str:
        numbers = sorted({self._example(number)[0].row for number in chosen})
        more = f" and {len(numbers) - _NAMED_ROWS} more" if len(numbers) > _NAMED_ROWS else ""
        return ", ".join(map(str, numbers[:_NAMED_ROWS])) + more

    def _smaller(self, budget: int, chosen: Sequence[int], step: int) -> int:
        """Halve the micro-batch and say so. Raises: TrainingError when a single row does not fit."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        longest = max(self.lengths[row] for row in chosen)
        if budget <= longest:
            raise DoesNotFit(
                f"step {step} has a row of {longest} tokens that does not fit into GPU memory even alone; "
                f"a max_length below {longest} with long_rows 'drop', 'truncate' or 'split' would work"
            )
        smaller = max(budget // 2, longest)
        self.observer.notify(
            EventType.WARNING,
            code="smaller_micro_batch",
            message=f"GPU memory did not suffice for {budget} tokens at once; going on with {smaller}",
        )
        return smaller

    def _save(self, position: Position) -> None:
        path, size = self.checkpoints.save(position, self.parameters, self.optimizer)
        self.saved_step = position.step
        self.observer.notify(EventType.CHECKPOINT, step=position.step, path=path.name, size_bytes=size)

    def _seed(self, step: int) -> None:
        """Dropout and the like follow from (seed, step), so a step is the same after a resume or a smaller refit."""
        torch.manual_seed((self.plan.seed * 1_000_003 + step) % 2**63)


def make_optimizer(parameters: dict[str, nn.Parameter], *, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over float32 master weights, in one fused kernel; the schedule sets its learning rate before each step."""
    options: dict[str, Any] = {"weight_decay": weight_decay, "fused": True}
    return torch.optim.AdamW(list(parameters.values()), lr=0.0, **options)
