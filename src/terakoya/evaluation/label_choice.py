"""Which of a task's labels a model finds likeliest after a prompt: what it knows, whether or not it would write it. A
model that has lost the form of the answers fails at writing them and not at this. Knows rows and labels, not tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.heldout import MOST_LABELS, SHORT_ANSWER_TOKENS
from terakoya.evaluation.metrics import normalise_answer
from terakoya.models.evaluating import evaluating
from terakoya.models.label_forward import LabelForward
from terakoya.models.row_likelihood import row_sums

MOST_TOKENS = 16_000
"""Of a task's prompts with all its labels behind each: of more rows an even selection is asked."""
Labels = Mapping[str, Sequence[int]]
"""Each label as it is compared, and its tokens with the end token."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A prompt with one label behind it. Fits wherever a row does."""

    input_ids: list[int]
    label_spans: tuple[tuple[int, int], ...]


def labels_of(rows: Iterable[EncodedExample]) -> dict[str, tuple[int, ...]]:
    """Return the labels the answers of these rows are, by the measure of ``answer_kind``; none where they are not a few
    short ones. Rows are read one by one, and no further than it takes to know.
    """
    labels: dict[str, tuple[int, ...]] = {}
    total = short = 0
    for row in rows:
        answer = tuple(row.answer_ids)
        total += 1
        short += len(answer) <= SHORT_ANSWER_TOKENS
        name = normalise_answer(row.answer)
        is_whole = row.label_spans[-1][1] == len(row.input_ids)  # else a piece of a conversation that was split
        if name not in labels or (is_whole and len(answer) > len(labels[name])):  # one that was cut is shorter
            labels[name] = answer
        if len(labels) > MOST_LABELS:
            return {}
    return labels if short >= 0.9 * total and 2 <= len(labels) <= total / 2 else {}


def asked_rows(rows: Sequence[EncodedExample], labels: Labels, most_tokens: int = MOST_TOKENS) -> list[int]:
    """Return which rows are asked, evenly over all, so that it costs at most so many tokens; one at least."""
    if not labels or not rows:
        return []
    behind = sum(map(len, labels.values()))
    each = sum(len(row.prompt_ids) for row in rows) / len(rows) + behind
    count = max(1, min(len(rows), int(most_tokens / each)))
    return [number * len(rows) // count for number in range(count)]


def choose_labels(
    module: nn.Module,
    rows: Sequence[EncodedExample],
    labels: Labels,
    *,
    batch_tokens: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> list[bool]:
    """Return for each row whether its own label is the likeliest of all, by the log-likelihood of its tokens, the end
    token included, summed.

    A tie goes to the other label. ``batch_tokens`` bounds what is computed at once, where one label fits.
    """
    right = []
    with evaluating(module), torch.inference_mode():
        forward: LabelForward | None = None
        for done, row in enumerate(rows, start=1):
            own = normalise_answer(row.answer)
            # The row's own tokens, should its label be written in several ways.
            candidates = [_candidate(row, labels[name] if name != own else row.answer_ids) for name in labels]
            forward = forward or LabelForward.choose(module, candidates[:2])
            found = dict(zip(labels, _log_likelihoods(forward, candidates, batch_tokens), strict=True))
            right.append(all(found[own] > value for name, value in found.items() if name != own))
            if progress is not None:
                progress(done, len(rows))
    return right


def _candidate(row: EncodedExample, label: Sequence[int]) -> _Candidate:
    start = row.labels_start
    return _Candidate([*row.prompt_ids, *label], ((start, start + len(label)),))


def _log_likelihoods(forward: LabelForward, rows: Sequence[_Candidate], batch_tokens: int) -> list[float]:
    """The prompt is shared, so that it is computed once a batch where the model allows that."""
    at_once = max(1, batch_tokens // max(len(row.input_ids) for row in rows))
    found: list[float] = []
    for start in range(0, len(rows), at_once):
        batch = rows[start : start + at_once]
        found += (-row_sums(forward.losses(batch), batch)).tolist()
    return found
