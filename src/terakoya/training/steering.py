"""Watches what a run forgets, on earlier rows and general text, and holds it to its budget: a few steps without a
penalty calibrate lambda, measurements between steps steer it. Knows how to measure; what follows from a measurement is
``continual/budget.py``'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from terakoya.data.token_store import lengths_of
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.events import EventType, Observer
from terakoya.evaluation.canaries import LANGUAGES, CanaryScores, canary_set, passage_rows
from terakoya.models.evaluating import evaluating
from terakoya.models.label_forward import LabelForward
from terakoya.models.length_batches import length_batches
from terakoya.models.packing import label_count, shared_prefix
from terakoya.models.row_likelihood import log_likelihoods
from terakoya.storage.files import write_durably
from terakoya.storage.json_text import to_json
from terakoya.training.continual.budget import Controller, Probe
from terakoya.training.continual.regulariser import Regulariser
from terakoya.training.continual.replay import ReplayBuffer, ReplayExample
from terakoya.training.continual.replayed import as_row
from terakoya.training.continual.soft_targets import SoftTargets, joined, soft_target_losses
from terakoya.training.engine.batching import StepPlan, micro_batches
from terakoya.training.engine.checkpoint import Position
from terakoya.training.engine.loop import Seen, Watch, make_optimizer
from terakoya.training.objectives.objective import MicroBatch, Objective, StepSize
from terakoya.training.retention import task_of_link

PROBE_STEPS = 8
CANARY_ROWS = 24
MEASUREMENTS = 10
"""In a run, where it is long enough."""
FEWEST_STEPS_BETWEEN = 4
"""A measurement costs as much as a step or two."""
GENERAL_PASSAGES = 3
"""Of each language."""


@dataclass(frozen=True, slots=True)
class TaskCanary:
    """What is known of one earlier task at one moment, by its kept rows."""

    task: str
    """As the run that learned it was called, as far as a file name tells."""
    kl: float
    """Mean KL(as it was || as it is) a label, in nats."""
    loss: float
    """Mean loss of the rows' own labels, in nats."""
    labels: int


@dataclass(frozen=True, slots=True)
class Canaries:
    """Earlier rows with what was said of them: how far is the model from that now?"""

    rows: Sequence[ReplayExample]
    module: nn.Module
    forward: LabelForward
    autocast: Callable[[], AbstractContextManager[Any]]
    budget_tokens: int
    """At most so many tokens at once, as the run's own micro-batches."""

    @classmethod
    def of(
        cls,
        buffer: ReplayBuffer,
        module: nn.Module,
        forward: LabelForward,
        autocast: Callable[[], AbstractContextManager[Any]],
        *,
        budget_tokens: int,
        seed: int,
    ) -> Canaries:
        soft = ReplayBuffer(tuple(each for each in buffer.examples if each.targets is not None))
        drawn = soft.draw(min(CANARY_ROWS, len(soft.examples)), seed=seed, step=1)
        rows = list({each.key: each for each in drawn}.values())
        return cls(rows, module, forward, autocast, budget_tokens)

    @torch.no_grad()
    def measure(self) -> list[TaskCanary]:
        """Look at every task before, in the order they were learned, at the precision of what was kept."""
        sums: dict[str, Tensor] = {each.task: torch.zeros(3, dtype=torch.float64) for each in self.rows}
        rows = [as_row(row) for row in self.rows]
        with evaluating(self.module), self.autocast():
            for batch in length_batches([len(row.input_ids) for row in rows], self.budget_tokens):
                chosen = [rows[index] for index in batch]
                targets = joined([_targets(self.rows[index]) for index in batch])
                found = self.forward.of_logits(chosen, partial(_kl_and_loss, targets, _labels_of(chosen)))
                parts = torch.split(found.double().cpu(), [self.rows[index].labels for index in batch])
                for index, part in zip(batch, parts, strict=True):
                    sums[self.rows[index].task] += torch.tensor([*part.sum(0), len(part)], dtype=torch.float64)
        return [
            TaskCanary(task_of_link(task), float(kl / labels), float(loss / labels), int(labels))
            for task, (kl, loss, labels) in sums.items()
        ]

    @torch.no_grad()
    def nats(self, rows: Sequence[EncodedExample]) -> float:
        """The loss of all labels of some other rows together, in nats."""
        with evaluating(self.module), self.autocast():
            return -sum(log_likelihoods(self.forward, rows, batch_tokens=self.budget_tokens))

    def kl(self) -> float:
        """Of all earlier tasks together, each label alike."""
        return mean_kl(self.measure())


def steps_between(total_steps: int) -> int:
    """Measurements come after so many steps."""
    return max(FEWEST_STEPS_BETWEEN, total_steps // MEASUREMENTS)


def mean_kl(canaries: Sequence[TaskCanary]) -> float:
    return sum(each.kl * each.labels for each in canaries) / sum(each.labels for each in canaries)


def _targets(row: ReplayExample) -> SoftTargets:
    assert row.targets is not None, "only rows with soft targets are canaries"
    return row.targets


def _labels_of(rows: Sequence[EncodedExample]) -> Tensor:
    return torch.tensor([token for row in rows for start, end in row.label_spans for token in row.input_ids[start:end]])


def _kl_and_loss(targets: SoftTargets, labels: Tensor, logits: Tensor, which: slice) -> Tensor:
    """[some labels, 2]"""
    stored = targets.slice(which.start, which.stop).to(logits.device)
    losses = cross_entropy(logits, labels[which].to(logits.device), reduction="none")
    return torch.stack([soft_target_losses(logits, stored), losses], dim=1)


@dataclass(frozen=True, slots=True)
class GeneralText:
    """Passages of general text in the languages the model had when the run began, and their loss at that time."""

    rows: Mapping[str, Sequence[EncodedExample]]
    """By language."""
    before: Mapping[str, float]
    """Nats a token."""
    canaries: Canaries
    """Whose module and way through it these passages take too."""

    @classmethod
    def of(cls, canaries: Canaries, tokenizer: Any) -> GeneralText:
        """Take the shortest few passages, which cost as much as a step or two, of languages that the model has."""
        rows: dict[str, list[EncodedExample]] = {}
        before = {}
        for language in LANGUAGES:
            passages = sorted(canary_set(language).passages, key=len)[:GENERAL_PASSAGES]
            part = passage_rows(passages, tokenizer)
            nats = canaries.nats(part)
            size = sum(len(passage.encode()) for passage in passages)
            if CanaryScores(language, [nats], [size]).is_known:
                rows[language], before[language] = part, nats / sum(map(label_count, part))
        return cls(rows, before, canaries)

    def measure(self) -> dict[str, float]:
        """By language: nats a token now."""
        return {
            language: self.canaries.nats(rows) / sum(map(label_count, rows)) for language, rows in self.rows.items()
        }


def probe(
    *,
    canaries: Canaries,
    regulariser: Regulariser,
    parameters: dict[str, nn.Parameter],
    objective: Objective,
    examples: Sequence[Any],
    plan: StepPlan,
    budget_tokens: int,
    learning_rate: float,
    max_grad_norm: float,
) -> Probe:
    """Take some steps without a penalty, measure what they did, and put every weight back where it was.

    ``budget_tokens``: at most so many at once, as in the run itself.
    """
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    steps = [plan.rows_of(step) for step in range(1, min(PROBE_STEPS, plan.total_steps) + 1)]

    lengths = lengths_of(examples).tolist()

    def shares(chosen: Sequence[int]) -> Iterator[Tensor]:
        """A step's loss, micro-batch by micro-batch."""
        rows = {number: [examples[number]] for number in chosen}
        size = StepSize(len(chosen), sum(map(objective.count_labels, rows.values())))
        shared = shared_prefix([examples[number] for number in chosen]) if canaries.forward.shares_prefix else 0
        for part in micro_batches(chosen, lengths, shared=shared, budget_tokens=budget_tokens):
            with canaries.autocast():
                batch = MicroBatch(part, [rows[number] for number in part])
                yield objective.share(canaries.forward, batch, size).loss

    def told() -> float:
        with torch.no_grad():
            return sum(float(loss) for chosen in steps for loss in shares(chosen)) / len(steps)

    try:
        canaries.module.eval()  # dropout would hide how the loss fell
        before = told()
        for chosen in steps:
            for loss in shares(chosen):
                loss.backward()  # type: ignore[no-untyped-call]
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
class CanaryWatch:
    """Looks at earlier tasks and general text between steps and tells; where there is a budget, it sets lambda by that.
    Then the run's own watch looks.
    """

    inner: Watch
    canaries: Canaries
    general: GeneralText
    controller: Controller | None
    """None where lambda is fixed."""
    general_budget: float | None
    """Acceptable rise of the loss on general text, nats a token; None only tells of it."""
    regulariser: Regulariser
    every: int
    observer: Observer

    def after_step(self, position: Position) -> Seen:
        controller = self.controller
        if controller is not None:
            if position.retention_strength is not None:
                controller.strength = position.retention_strength
            elif position.step == 0:
                position = replace(position, retention_strength=controller.strength)
        if position.step % self.every == 0 and position.step != position.retention_step:
            position = self._looked(position)
        if controller is not None:
            self.regulariser.strength = controller.strength
        return self.inner.after_step(position)

    def _looked(self, position: Position) -> Position:
        tasks, general = self.canaries.measure(), self.general.measure()
        kl = mean_kl(tasks) if tasks else None
        strength, budget = self.regulariser.strength, None
        if self.controller is not None:
            assert kl is not None, "a budget is measured on kept rows"
            budget = self.controller.budget
            strength = self.controller.after_measurement(self._used(kl, general, budget))
            position = replace(position, retention_strength=strength)
        self.observer.notify(
            EventType.CANARY,
            when="during",
            step=position.step,
            kl=kl,
            budget=budget,
            strength=strength,
            tasks=[asdict(each) for each in tasks],
            general=[
                {"language": language, "loss": loss, "rise": loss - self.general.before[language]}
                for language, loss in general.items()
            ],
        )
        return replace(position, retention_step=position.step)

    def _used(self, kl: float, general: Mapping[str, float], budget: float) -> float:
        """What counts against the budget: the KL, or the rise on general text in the same measure if that is more."""
        if self.general_budget is None:
            return kl
        rises = [loss - self.general.before[language] for language, loss in general.items()]
        return max([kl, *(budget * rise / self.general_budget for rise in rises)])
