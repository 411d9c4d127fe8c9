"""The last row of a chain's matrix: when a task has been learned, scores it and every earlier one again, and the model
before on the new task. Knows modules, links and the run's parts; the figures are ``continual/scored.py``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.canaries import CanaryScores
from terakoya.evaluation.label_choice import asked_rows, labels_of
from terakoya.evaluation.task_scores import TaskRows, TaskScores, keep_rows, score_task
from terakoya.models.base_loader import LoadedModel
from terakoya.training.continual.scored import MATRIX, SCORED, Row, assemble, row_of

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class EarlierTask:
    """What a link of the chain says of the task it is of."""

    task: str
    rows: TaskRows | None
    """None if none were kept, or if they were erased."""
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the run's own evaluation has found already: general text before and after."""

    before: Sequence[CanaryScores]
    after: Sequence[CanaryScores]


@dataclass(frozen=True, slots=True)
class ChainScorer:
    task: str
    """As the new link will be called, without its number."""
    name: str
    dataset: str
    earlier: Sequence[EarlierTask]
    """In the order they were learned."""
    module: nn.Module
    tokenizer: Any
    autocast: Callable[[], AbstractContextManager[Any]]
    batch_tokens: int
    """As many as the run takes at once."""
    previous_weights: Weights | None
    """What is trained, as the task before left it; None where the whole model is trained, or before the first task."""
    load_previous: Callable[[], LoadedModel]
    load_base: Callable[[], LoadedModel] | None
    """The model before the chain, for whole models after the first task; None if it is not there any more."""
    tick: Callable[[int, int], None]
    """Hears (rows done, rows); raises if the run is to end."""
    peak_bytes: Callable[[], int]

    def score(self, own: TaskRows, judged: Judged | None, *, training_seconds: float) -> dict[str, Any]:
        """Return the metrics of the new link. Only what has rows to be scored on is."""
        started = time.monotonic()
        steps = _Steps(self.tick, self._total(own))
        scores = {each.task: self._scored(self.module, each.rows, steps) for each in self.earlier}
        scores[self.task] = self._scored(self.module, own, steps)
        previous = self._before(self._as_previous, own, steps)
        base = previous if not self.earlier else self._before(self._as_base, own, steps)
        is_first = not self.earlier
        row = Row(
            task=self.task,
            name=self.name,
            dataset=self.dataset,
            scores={task: found for task, found in scores.items() if found is not None},
            base=base,
            previous=previous,
            canaries={each.language: each for each in (judged.after if judged else ())},
            base_canaries={each.language: each for each in (judged.before if judged and is_first else ())},
            labels=len(own.labels),
            likelihood_rows=len(asked_rows(own.rows, own.labels)),
            heldout_rows=len(own.rows),
            seconds=round(time.monotonic() - started, 1),
            training_seconds=round(training_seconds, 1),
            peak_bytes=self.peak_bytes(),
        )
        rows = [*(row_of(each.metrics) for each in self.earlier), row]
        return {SCORED: row.to_json(), MATRIX: assemble(rows, [*(each.task for each in self.earlier), self.task])}

    def _total(self, own: TaskRows) -> int:
        return sum(len(each.rows.rows) for each in self.earlier if each.rows) + 3 * len(own.rows)

    def _scored(self, module: nn.Module, task: TaskRows | None, steps: _Steps) -> TaskScores | None:
        if task is None or not task.rows:
            return None
        with self.autocast():
            found = score_task(
                module, self.tokenizer, task, batch_tokens=self.batch_tokens, progress=steps.within(len(task.rows))
            )
        steps.past(len(task.rows))
        return found

    def _before(
        self, state: Callable[[], AbstractContextManager[nn.Module | None]], own: TaskRows, steps: _Steps
    ) -> TaskScores | None:
        if not own.rows:
            return None
        with state() as module:
            return None if module is None else self._scored(module, own, steps)

    @contextmanager
    def _as_previous(self) -> Iterator[nn.Module | None]:
        """The model before this task: the base at the beginning of a chain."""
        if self.previous_weights is not None:
            with _swapped(self.module, self.previous_weights):
                yield self.module
        elif isinstance(self.module, PeftModel):
            with cast(Any, self.module).disable_adapter():
                yield self.module
        else:
            yield self.load_previous().module

    @contextmanager
    def _as_base(self) -> Iterator[nn.Module | None]:
        if isinstance(self.module, PeftModel):
            with cast(Any, self.module).disable_adapter():
                yield self.module
        else:
            yield self.load_base().module if self.load_base is not None else None


def own_rows(
    heldout: Sequence[EncodedExample], trained: Sequence[EncodedExample], *, asks: bool, most_rows: int, most_bytes: int
) -> TaskRows:
    """Return what the new task is to be scored on, now and later; its labels are those of all its rows."""
    labels = labels_of(chain(trained, heldout)) if asks else {}
    return TaskRows(keep_rows(heldout, most_rows, most_bytes), labels, asks)


def told(matrix: Mapping[str, Any]) -> list[str]:
    """Return what the newest row says of each earlier task, in a sentence each."""
    exact = matrix["measures"].get("exact_match") or matrix["measures"].get("loss")
    if exact is None:
        return ["no task of this chain has held-out rows to be scored on"]
    last, sentences = len(matrix["tasks"]), []
    for place, task in enumerate(matrix["tasks"][:-1], start=1):
        now, then = exact["r"][last][place - 1], exact["r"][place][place - 1]
        name = f"task {place} ({task['name']})"
        if now is None or then is None:
            sentences.append(f"{name}: not measured, its held-out rows were not kept")
        elif exact["less_is_better"]:
            sentences.append(f"{name}: loss {now:.3f}, {then:.3f} when it had been learned")
        else:
            sentences.append(f"{name}: {now:.1%} right, {then:.1%} when it had been learned")
    return sentences


@contextmanager
def _swapped(module: nn.Module, weights: Weights) -> Iterator[None]:
    """Within, what is trained is as it was; after, as it is, to the last bit."""
    parameters = dict(module.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in weights}
    try:
        _put(parameters, weights)
        yield
    finally:
        _put(parameters, kept)


@torch.no_grad()
def _put(parameters: Mapping[str, nn.Parameter], weights: Weights) -> None:
    for name, value in weights.items():
        parameters[name].copy_(value)


class _Steps:
    """Progress over several passes."""

    def __init__(self, tick: Callable[[int, int], None], total: int) -> None:
        self._tick, self._total, self._done = tick, total, 0

    def within(self, most: int) -> Callable[[int], None]:
        done = self._done
        return lambda count: self._tick(done + min(count, most), self._total)

    def past(self, count: int) -> None:
        self._done += count
