"""The figures of a sequence of tasks: the matrix R of scores, and what is read off it, each with an interval. Knows
scores of examples; not models or tasks.

R[i, j] is the score on task j after learning task i; row 0 is the model before the first task. Tasks count from 1. A
cell may be missing: nobody can score a task that is not there yet, or whose rows were not kept. A figure that needs a
missing cell is missing too.
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

    scores: tuple[tuple[Scores | None, ...], ...]

    @classmethod
    def of(cls, scores: Sequence[Sequence[Sequence[float] | None]]) -> TaskMatrix:
        """Raises: InvalidConfig unless there are T + 1 rows of T tasks, each task with the same examples wherever it
        was scored.
        """
        rows = tuple(
            tuple(None if cell is None else np.asarray(cell, dtype=np.float64) for cell in row) for row in scores
        )
        tasks = len(rows) - 1
        if tasks < 1 or any(len(row) != tasks for row in rows):
            found = [len(row) for row in rows]
            raise InvalidConfig(f"a matrix of T tasks has T + 1 rows (the first before any task) of T; got {found}")
        for task in range(tasks):
            shapes = {cell.shape for row in rows if (cell := row[task]) is not None}
            if len(shapes) > 1 or (0,) in shapes:
                raise InvalidConfig(f"task {task + 1} must be scored on the same examples, one at least, in every row")
        return cls(rows)

    @property
    def tasks(self) -> int:
        return len(self.scores) - 1

    @property
    def means(self) -> NDArray[np.float64]:
        """R, [T + 1, T]; NaN where nothing was scored."""
        return np.array([[np.nan if cell is None else cell.mean() for cell in row] for row in self.scores])

    def accuracy(self) -> Interval | None:
        """ACC = mean over j of R[T, j]."""
        return _mean(list(self.scores[-1]))

    def backward_transfer(self) -> Interval | None:
        """BWT = mean over j < T of R[T, j] - R[j, j]: what later tasks did to earlier ones. None for a single task."""
        return _mean([_minus(self.scores[-1][j - 1], self.scores[j][j - 1]) for j in range(1, self.tasks)])

    def forward_transfer(self) -> Interval | None:
        """FWT = mean over j > 1 of R[j - 1, j] - R[0, j]: what a task gained before it was learned."""
        pairs = [(self.scores[j - 1][j - 1], self.scores[0][j - 1]) for j in range(2, self.tasks + 1)]
        return _mean([_minus(before, base) for before, base in pairs])

    def forgetting(self) -> Interval | None:
        """Mean over j < T of max over l of R[l, j] - R[T, j]; the interval takes the best l as given.

        The best is that of the rows l < T in which the task was scored.
        """
        changes = []
        for j in range(1, self.tasks):
            scored = [cell for row in self.scores[:-1] if (cell := row[j - 1]) is not None]
            changes.append(_minus(max(scored, key=np.mean, default=None), self.scores[-1][j - 1]))
        return _mean(changes)

    def learning(self) -> Interval | None:
        """LA = mean over j of R[j, j]: how well each task was learned at all. A strong penalty buys BWT with it."""
        return _mean([self.scores[j][j - 1] for j in range(1, self.tasks + 1)])

    def figures(self) -> Mapping[str, Interval | None]:
        return {
            "acc": self.accuracy(),
            "bwt": self.backward_transfer(),
            "fwt": self.forward_transfer(),
            "forgetting": self.forgetting(),
            "la": self.learning(),
        }

    def to_json(self) -> dict[str, Any]:
        r = [[None if np.isnan(value) else value for value in row] for row in self.means.tolist()]
        return {"r": r} | {name: each and each.to_json() for name, each in self.figures().items()}


def _minus(one: Scores | None, other: Scores | None) -> Scores | None:
    return None if one is None or other is None else one - other


def _mean(groups: Sequence[Scores | None]) -> Interval | None:
    """None for no groups, and if one of them is missing: a mean over the others would be another figure."""
    known = [group for group in groups if group is not None]
    return bootstrap_mean_of_groups(known) if known and len(known) == len(groups) else None
