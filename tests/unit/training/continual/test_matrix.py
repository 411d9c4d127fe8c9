"""The figures of a sequence of tasks, against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from terakoya.exceptions import InvalidConfig
from terakoya.training.continual.matrix import TaskMatrix

R = [[0.1, 0.2, 0.3], [0.9, 0.3, 0.3], [0.5, 0.8, 0.4], [0.4, 0.6, 0.7]]
"""Row 0 before any task, then after each of three."""


def matrix(examples: int = 10) -> TaskMatrix:
    """Scores of 0 and 1 whose means are R."""
    return TaskMatrix.of(
        [[[1.0] * round(cell * examples) + [0.0] * (examples - round(cell * examples)) for cell in row] for row in R]
    )


def test_every_figure_is_its_definition() -> None:
    found = matrix()
    np.testing.assert_allclose(found.means, R)
    assert found.accuracy().value == pytest.approx((0.4 + 0.6 + 0.7) / 3)  # type: ignore[union-attr]
    assert found.backward_transfer().value == pytest.approx(((0.4 - 0.9) + (0.6 - 0.8)) / 2)  # type: ignore[union-attr]
    assert found.forward_transfer().value == pytest.approx(((0.3 - 0.2) + (0.4 - 0.3)) / 2)  # type: ignore[union-attr]
    assert found.forgetting().value == pytest.approx(((0.9 - 0.4) + (0.8 - 0.6)) / 2)  # type: ignore[union-attr]
    assert found.learning().value == pytest.approx((0.9 + 0.8 + 0.7) / 3)  # type: ignore[union-attr]


def test_forgetting_is_against_the_best_ever_not_against_the_first() -> None:
    """Task 1 was best after task 2."""
    rows = [[[0.0] * 8] * 3, [[0.5] * 8] * 3, [[0.9] * 8] * 3, [[0.6] * 8] * 3]
    found = TaskMatrix.of(rows)
    assert found.forgetting().value == pytest.approx(0.3)  # type: ignore[union-attr]
    assert found.backward_transfer().value == pytest.approx((0.1 - 0.3) / 2)  # type: ignore[union-attr]


def test_differences_are_paired() -> None:
    """The same examples were lost in every task: paired there is no doubt, unpaired the interval would be wide."""
    before = [1.0, 0.0] * 50
    after = [0.0, 0.0] * 50
    steady = TaskMatrix.of([[before] * 2, [before, before], [before, before]])
    assert steady.backward_transfer().to_json() == {"value": 0.0, "low": 0.0, "high": 0.0}  # type: ignore[union-attr]
    lost = TaskMatrix.of([[before] * 2, [before, before], [after, before]]).backward_transfer()
    assert lost is not None
    assert lost.value == -0.5
    assert lost.low is not None
    assert -0.65 < lost.low < -0.5
    assert lost.excludes_zero


def test_too_few_examples_have_no_interval() -> None:
    accuracy = TaskMatrix.of([[[0.0] * 5], [[1.0] * 5]]).accuracy()
    assert accuracy is not None
    assert (accuracy.value, accuracy.low, accuracy.high) == (1.0, None, None)


def test_one_task_has_no_transfer() -> None:
    single = TaskMatrix.of([[[0.0] * 6], [[1.0] * 6]])
    figures = single.to_json()
    assert (figures["bwt"], figures["fwt"], figures["forgetting"]) == (None, None, None)
    assert figures["r"] == [[0.0], [1.0]]
    assert figures["acc"]["value"] == figures["la"]["value"] == 1.0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[[1.0]]], "T \\+ 1 rows"),
        ([[[1.0]], [[1.0], [1.0]]], "T \\+ 1 rows"),
        ([[[1.0]], [[1.0, 0.0]]], "same examples"),
        ([[[]], [[]]], "same examples"),
    ],
)
def test_a_matrix_with_gaps_is_refused(scores: list[list[list[float]]], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        TaskMatrix.of(scores)


def test_a_figure_that_needs_a_missing_cell_is_missing_and_no_other() -> None:
    """As chains leave it: nobody scores a task two rows before it is learned; task 1 was not kept for row 3."""
    full = [[[value] * 8 for value in row] for row in R]
    whole = TaskMatrix.of([full[0], [full[1][0], full[1][1], None], full[2], full[3]])
    assert all(interval is not None for interval in whole.figures().values())
    assert whole.figures() == TaskMatrix.of(full).figures()
    lost = TaskMatrix.of([full[0], full[1], full[2], [None, full[3][1], full[3][2]]])
    figures = lost.to_json()
    assert (figures["acc"], figures["bwt"], figures["forgetting"]) == (None, None, None)
    assert figures["fwt"]["value"] == pytest.approx(0.1)
    assert figures["la"]["value"] == pytest.approx(0.8)
    assert figures["r"][3] == [None, 0.6, 0.7]
