"""The figures of a sequence of tasks: the matrix R of scores, and what is read off it, each with an interval. Knows
scores of examples; not models or tasks.

R[i, j] is the score on task j after learning task i; row 0 is the model before the first task. Tasks count from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terakoya.evaluation.statistics import Interval, bootstrap_mean_of_groups
from terakoya.exceptions import InvalidConfig

Scores = NDArray[np.float64]
"""One entry an example, higher is better: 1 or 0 for exact match, a log-likelihood for losses."""


@dataclass(frozen=True, slots=True)
class TaskMatrix:
    """Scores of every example of every task after every task: ``scores[i][j - 1]`` for R[i, j]."""

    scores: tuple[tuple[Scores, ...], ...]

    @classmethod
    def of(cls, scores: Sequence[Sequence[Sequence[float]]]) -> TaskMatrix:
        """Raises: InvalidConfig unless there are T + 1 rows of T tasks, each task with the same examples throughout."""
        rows = tuple(tuple(np.asarray(cell, dtype=np.float64) for cell in row) for row in scores)
        tasks = len(rows) - 1
        if tasks < 1 or any(len(row) != tasks for row in rows):
            found = [len(row) for row in rows]
            raise InvalidConfig(f"a matrix of T tasks has T + 1 rows (the first before any task) of T; got {found}")
        for task in range(tasks):
            if len({cell.shape for cell in (row[task] for row in rows)}) > 1 or not len(rows[0][task]):
                raise InvalidConfig(f"task {task + 1} must be scored on the same examples, one at least, in every row")
        return cls(rows)

    @property
    def tasks(self) -> int:
        return len(self.scores) - 1

    @property
    def means(self) -> NDArray[np.float64]:
        """R, [T + 1, T]."""
        return np.array([[cell.mean() for cell in row] for row in self.scores])

    def accuracy(self) -> Interval:
        """ACC = mean over j of R[T, j]."""
        return bootstrap_mean_of_groups(list(self.scores[-1]))

    def backward_transfer(self) -> Interval | None:
        """BWT = mean over j < T of R[T, j] - R[j, j]: what later tasks did to earlier ones. None for a single task."""
        return _mean([self.scores[-1][j - 1] - self.scores[j][j - 1] for j in range(1, self.tasks)])

    def forward_transfer(self) -> Interval | None:
        """FWT = mean over j > 1 of R[j - 1, j] - R[0, j]: what a task gained before it was learned."""
        return _mean([self.scores[j - 1][j - 1] - self.scores[0][j - 1] for j in range(2, self.tasks + 1)])

    def forgetting(self) -> Interval | None:
        """Mean over j < T of max over l of R[l, j] - R[T, j]; the interval takes the best l as given."""
        means = self.means
        best = [int(means[:-1, j - 1].argmax()) for j in range(1, self.tasks)]
        return _mean([self.scores[row][j - 1] - self.scores[-1][j - 1] for j, row in enumerate(best, start=1)])

    def learning(self) -> Interval:
        """LA = mean over j of R[j, j]: how well each task was learned at all. A strong penalty buys BWT with it."""
        return bootstrap_mean_of_groups([self.scores[j][j - 1] for j in range(1, self.tasks + 1)])

    def to_json(self) -> dict[str, Any]:
        figures: Mapping[str, Interval | None] = {
            "acc": self.accuracy(),
            "bwt": self.backward_transfer(),
            "fwt": self.forward_transfer(),
            "forgetting": self.forgetting(),
            "la": self.learning(),
        }
        return {"r": self.means.tolist()} | {name: each and each.to_json() for name, each in figures.items()}


def _mean(groups: list[Scores]) -> Interval | None:
    return bootstrap_mean_of_groups(groups) if groups else None
