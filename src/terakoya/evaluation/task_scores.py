"""One cell of a chain's matrix: the scores of a task's held-out rows under a model as it is, by what it writes, by
which label it finds likeliest, and by its loss. Knows modules and rows; not chains or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.heldout import evaluate_heldout
from terakoya.evaluation.label_choice import asked_rows, choose_labels
from terakoya.evaluation.likelihood import row_losses
from terakoya.models.packing import label_count


@dataclass(frozen=True, slots=True)
class TaskRows:
    """What a task is scored on, the same after every task."""

    rows: list[EncodedExample]
    labels: dict[str, tuple[int, ...]]
    """Each label and its tokens; none where the answers are not labels."""
    asks: bool
    """Whether the rows are answers to be asked for; else running text, of which only the loss is told."""


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One entry a row, in the order of the rows."""

    loss_sums: list[float]
    """Cross-entropy summed over the row's labels, in nats."""
    label_counts: list[int]
    exact: list[bool]
    """Whether it writes the reference; empty of running text."""
    likeliest: list[bool]
    """Whether the reference is the likeliest label, of those rows that ``asked_rows`` chooses; empty without labels."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises: KeyError, TypeError if it is not what ``to_json`` gave."""
        return cls(**{each.name: list(stored[each.name]) for each in fields(cls)})


def score_task(
    module: nn.Module,
    tokenizer: Any,
    task: TaskRows,
    *,
    batch_tokens: int = 2048,
    progress: Callable[[int], None] | None = None,
) -> TaskScores:
    """Score every row under the module as it is; ``progress`` hears how many rows are done.

    Raises: InvalidDataset without rows; TrainingError if a loss is not a finite number.
    """

    def told(done: int, _: int) -> None:
        if progress is not None:
            progress(done)

    if not task.asks:
        losses = row_losses(module, task.rows, of="held-out text", batch_tokens=batch_tokens, progress=told)
        return TaskScores(losses, [label_count(row) for row in task.rows], [], [])
    scores = evaluate_heldout(module, tokenizer, task.rows, batch_tokens=batch_tokens, shown=0, progress=told)
    asked = [task.rows[index] for index in asked_rows(task.rows, task.labels)]
    likeliest: list[bool] = []
    if asked:  # the rows are done, but a run is to show that it gets on and to hear that it is to stop

        def still(_: int, __: int) -> None:
            told(len(task.rows), len(task.rows))

        likeliest = choose_labels(module, asked, task.labels, batch_tokens=batch_tokens, progress=still)
    return TaskScores(scores.loss_sums, scores.label_counts, scores.exact, likeliest)


def keep_rows(rows: Sequence[EncodedExample], most_rows: int, most_bytes: int) -> list[EncodedExample]:
    """Choose rows to keep, evenly over all, so many that they fit; a token counts four bytes, an answer its own."""
    count = min(len(rows), most_rows)
    while count:
        chosen = [rows[number * len(rows) // count] for number in range(count)]
        if sum(4 * len(row.input_ids) + len(row.answer.encode()) for row in chosen) <= most_bytes:
            return chosen
        count = count * 3 // 4
    return []
