"""What a link says of scores: its own row of R by example, and the whole matrix up to it as people read it. Knows what
links store; not how it was scored.

    metrics.json: {"scored": Row as JSON, "matrix": what ``assemble`` returns}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from terakoya.evaluation.canaries import CanaryScores
from terakoya.evaluation.statistics import Interval, bootstrap_mean, wilson_interval
from terakoya.evaluation.task_scores import TaskScores
from terakoya.training.continual.matrix import TaskMatrix

SCORED, MATRIX = "scored", "matrix"
Measure = Literal["exact_match", "likelihood", "loss"]
MEASURES: tuple[Measure, ...] = ("exact_match", "likelihood", "loss")


@dataclass(frozen=True, slots=True)
class Row:
    """What was scored at the end of one task. A cell that was not measured is None or not there."""

    task: str
    """As its link is called, without the number."""
    name: str
    """Of the model that came out."""
    dataset: str
    scores: dict[str, TaskScores]
    """Of this task and of each earlier one whose rows were kept, by task."""
    base: TaskScores | None
    """This task's rows under the model before the chain: a cell of row 0."""
    previous: TaskScores | None
    """This task's rows before it was learned."""
    canaries: dict[str, CanaryScores]
    base_canaries: dict[str, CanaryScores]
    """Of the model before the chain, where this task saw it: the first does."""
    labels: int
    """How many labels the task has; 0 where its answers are none."""
    likelihood_rows: int
    heldout_rows: int
    """Kept to be scored again."""
    seconds: float
    """That scoring all of this took."""
    training_seconds: float
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {
            "scores": {task: scores.to_json() for task, scores in self.scores.items()},
            "base": self.base and self.base.to_json(),
            "previous": self.previous and self.previous.to_json(),
            "canaries": {name: each.to_json() for name, each in self.canaries.items()},
            "base_canaries": {name: each.to_json() for name, each in self.base_canaries.items()},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises: KeyError, TypeError if it is not what ``to_json`` gave."""
        fields = {name: stored[name] for name in cls.__slots__}
        return cls(
            **fields
            | {
                "scores": {task: TaskScores.from_json(each) for task, each in stored["scores"].items()},
                "base": stored["base"] and TaskScores.from_json(stored["base"]),
                "previous": stored["previous"] and TaskScores.from_json(stored["previous"]),
                "canaries": {name: CanaryScores.from_json(each) for name, each in stored["canaries"].items()},
                "base_canaries": {name: CanaryScores.from_json(each) for name, each in stored["base_canaries"].items()},
            }
        )


def row_of(metrics: Mapping[str, Any]) -> Row | None:
    """Return what a link's metrics say, None where nothing was scored."""
    return Row.from_json(metrics[SCORED]) if metrics.get(SCORED) else None


def assemble(rows: Sequence[Row | None], tasks: Sequence[str]) -> dict[str, Any]:
    """Return the matrix after the last of ``tasks``, as JSON; None in ``rows`` where a link has nothing.

    ``loss`` is nats a label, so that there less is better: its ``bwt`` above 0 is a rise on earlier tasks. Intervals of
    losses take the number of labels as given.
    """
    measures = {}
    for measure in MEASURES:
        cells = _cells(rows, tasks, measure)
        if any(cell is not None for row in cells for cell in row):
            measures[measure] = _measured(cells, measure)
    return {
        "tasks": [_task(row, task) for row, task in zip(rows, tasks, strict=True)],
        "measures": measures,
        "canaries": _canaries(rows),
        "costs": [_costs(row) for row in rows],
    }


def _cells(rows: Sequence[Row | None], tasks: Sequence[str], measure: Measure) -> list[list[list[float] | None]]:
    """[T + 1][T]: the scores by example of R[i, j], higher is better."""

    def cell(i: int, j: int) -> TaskScores | None:
        learned, asked = rows[i - 1] if i else None, rows[j - 1]
        if i >= j:
            return learned.scores.get(tasks[j - 1]) if learned else None
        if asked is None:
            return None
        return asked.base if i == 0 else asked.previous if i == j - 1 else None

    whole = range(1, len(tasks) + 1)
    return [[_values(cell(i, j), measure) for j in whole] for i in range(len(tasks) + 1)]


def _values(scores: TaskScores | None, measure: Measure) -> list[float] | None:
    if scores is None:
        return None
    if measure == "loss":  # scaled so that their plain mean is the loss a label
        scale = len(scores.label_counts) / sum(scores.label_counts)
        return [-scale * loss for loss in scores.loss_sums]
    found = scores.exact if measure == "exact_match" else scores.likeliest
    return [float(each) for each in found] or None


def _measured(cells: list[list[list[float] | None]], measure: Measure) -> dict[str, Any]:
    matrix = TaskMatrix.of(cells)
    less_is_better = measure == "loss"
    sign = -1.0 if less_is_better else 1.0
    r = [[None if np.isnan(value) else sign * value for value in row] for row in matrix.means.tolist()]
    figures = {
        name: interval and (interval if sign > 0 or name == "forgetting" else _turned(interval)).to_json()
        for name, interval in matrix.figures().items()
    }
    return {
        "less_is_better": less_is_better,
        "r": r,
        "intervals": [[_interval(cell, less_is_better) for cell in row] for row in cells],
        **figures,
    }


def _turned(interval: Interval) -> Interval:
    low, high = interval.high, interval.low
    return Interval(-interval.value, None if low is None else -low, None if high is None else -high)


def _interval(cell: list[float] | None, less_is_better: bool) -> dict[str, Any] | None:
    if cell is None:
        return None
    found = _turned(bootstrap_mean(cell)) if less_is_better else wilson_interval(round(sum(cell)), len(cell))
    return found.to_json() | {"rows": len(cell)}


def _task(row: Row | None, task: str) -> dict[str, Any]:
    if row is None:
        return {"task": task, "name": task, "dataset": None, "labels": 0, "heldout_rows": 0, "likelihood_rows": 0}
    facts = ("task", "name", "dataset", "labels", "heldout_rows", "likelihood_rows")
    return {name: getattr(row, name) for name in facts}


def _costs(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: getattr(row, name) for name in ("seconds", "training_seconds", "peak_bytes")}


def _canaries(rows: Sequence[Row | None]) -> list[dict[str, Any]]:
    """One entry a language: bits a byte of general text in every row, and how much more it is than in row 0."""
    first = rows[0].base_canaries if rows and rows[0] else {}
    return [
        {
            "language": language,
            "bits_per_byte": [base.bits_per_byte, *(found and found.bits_per_byte for found in after)],
            "rise": [found and _rise(base, found) for found in after],
        }
        for language, base in first.items()
        if any(after := [row.canaries.get(language) if row else None for row in rows])
    ]


def _rise(base: CanaryScores, after: CanaryScores) -> dict[str, Any] | None:
    """As a share of the loss before the chain; None where the bundled passages have changed since."""
    if len(base.nats) != len(after.nats) or base.sizes != after.sizes:
        return None
    changes = [new - old for old, new in zip(base.nats, after.nats, strict=True)]
    return bootstrap_mean(changes, base.nats).to_json()


def exact_row(row: Row, tasks: Sequence[str]) -> tuple[float, ...]:
    """Return R[t, 1..t] of exact match for a manifest; empty where a cell is missing."""
    cells = [row.scores.get(task) for task in tasks]
    if not all(cell is not None and cell.exact for cell in cells):
        return ()
    return tuple(math.fsum(cell.exact) / len(cell.exact) for cell in cells if cell is not None)
