"""Holds a run to its forgetting budget: a few steps without a penalty calibrate lambda, measurements on earlier rows
between steps steer it. Knows how to measure; what follows from a measurement is ``continual/budget.py``'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terakoya.domain.events import EventType, Observer
from terakoya.models.evaluating import evaluating
from terakoya.models.label_forward import LabelForward
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.continual.budget import Controller, Probe
from terakoya.training.continual.regulariser import Regulariser
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample
from terakoya.training.continual.replayed import as_row
from terakoya.training.continual.soft_targets import joined, soft_target_losses
from terakoya.training.engine.batching import StepPlan
from terakoya.training.engine.checkpoint import Position
from terakoya.training.engine.loop import Seen, Watch, make_optimizer
from terakoya.training.objectives.objective import MicroBatch, Objective, StepSize

PROBE_STEPS = 8
CANARY_ROWS = 24
MEASUREMENTS = 10
"""In a run: each costs as much as about a step."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Earlier rows with what was said of them: how far is the model from that now?"""

    rows: Sequence[ReplayExample]
    module: nn.Module
    forward: LabelForward
    autocast: Callable[[], AbstractContextManager[Any]]

    @classmethod
    def of(
        cls,
        buffer: ReplayBuffer,
        module: nn.Module,
        forward: LabelForward,
        autocast: Callable[[], AbstractContextManager[Any]],
        *,
        seed: int,
    ) -> Canaries:
        soft = ReplayBuffer(tuple(each for each in buffer.examples if each.targets is not None))
        drawn = soft.draw(min(CANARY_ROWS, len(soft.examples)), seed=seed, step=1)
        return cls(list({each.key: each for each in drawn}.values()), module, forward, autocast)

    @torch.no_grad()
    def kl(self) -> float:
        """Mean KL(as it was || as it is) a label, in nats, at the precision of what was kept."""
        with evaluating(self.module), self.autocast():
            logits = self.forward.logits([as_row(row) for row in self.rows])
        targets = joined([row.targets for row in self.rows if row.targets is not None]).to(logits.device)
        return float(soft_target_losses(logits, targets).mean())


def probe(
    *,
    canaries: Canaries,
    regulariser: Regulariser,
    parameters: dict[str, nn.Parameter],
    objective: Objective,
    examples: Sequence[Any],
    plan: StepPlan,
    learning_rate: float,
    max_grad_norm: float,
) -> Probe:
    """Take some steps without a penalty, measure what they did, and put every weight back where it was."""
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    steps = [plan.rows_of(step) for step in range(1, min(PROBE_STEPS, plan.total_steps) + 1)]

    def loss(chosen: Sequence[int]) -> Tensor:
        rows = [[examples[number]] for number in chosen]
        size = StepSize(len(chosen), sum(map(objective.count_labels, rows)))
        with canaries.autocast():
            return objective.share(canaries.forward, MicroBatch(list(chosen), rows), size).loss

    def told() -> float:
        with torch.no_grad():
            return sum(float(loss(chosen)) for chosen in steps) / len(steps)

    try:
        canaries.module.eval()  # dropout would hide how the loss fell
        before = told()
        for chosen in steps:
            loss(chosen).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return Probe(
            measured_kl=canaries.kl(),
            predicted_kl=regulariser.diagnostics(parameters)["penalty"],
            task_gain=before - told(),
        )
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name])


def calibrated(path: Path, fingerprint: str, budget: float, take_probe: Callable[[], Probe]) -> Controller:
    """Calibrate once a run: a resumed one goes on with what its first attempt measured."""
    try:
        kept = json.loads(path.read_bytes())
        found = Probe(**kept["probe"]) if kept["fingerprint"] == fingerprint else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        found = None
    if found is None:
        found = take_probe()
        controller = Controller.of(found, budget)
        write_durably(path, to_json({"fingerprint": fingerprint, "probe": asdict(found)}))
        return controller
    return Controller.of(found, budget)


@dataclass(slots=True)
class SteeringWatch:
    """Measures between steps and sets lambda, then lets the run's own watch look."""

    inner: Watch
    controller: Controller
    regulariser: Regulariser
    canaries: Canaries
    every: int
    observer: Observer

    def after_step(self, position: Position) -> Seen:
        if position.retention_strength is not None:
            self.controller.strength = position.retention_strength
        elif position.step == 0:
            position = replace(position, retention_strength=self.controller.strength)
        if position.step and position.step % self.every == 0 and position.step != position.retention_step:
            kl = self.canaries.kl()
            strength = self.controller.after_measurement(kl)
            position = replace(position, retention_strength=strength, retention_step=position.step)
            self.observer.notify(
                EventType.CANARY,
                when="during",
                step=position.step,
                kl=kl,
                budget=self.controller.budget,
                strength=strength,
            )
        self.regulariser.strength = self.controller.strength
        return self.inner.after_step(position)
