"""Scores a model on held-out answers: one teacher-forced pass gives every answer's loss and tells whether greedy
decoding would give the reference; only where it would not is anything generated. Knows nothing of training or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from typing import Any, Self

import torch
from torch import nn

from terakoya.data.tokenization import EncodedExample
from terakoya.evaluation.metrics import is_exact_match, may_become, normalise_answer
from terakoya.exceptions import InvalidDataset, TrainingError
from terakoya.models.evaluating import evaluating
from terakoya.models.generation import generate_batch, stop_ids_of
from terakoya.models.label_forward import LabelForward
from terakoya.models.length_batches import length_batches

SHOWN = 50
SHORT_ANSWER_TOKENS = 32
MOST_LABELS = 200
Progress = Callable[[int, int], None]
"""Hears (examples done, examples); what it raises ends the evaluation."""


@dataclass(frozen=True, slots=True)
class HeldoutScores:
    """One entry an example, in the order given."""

    loss_sums: list[float]
    """Cross-entropy summed over the example's labels, in nats."""
    label_counts: list[int]
    exact: list[bool]
    """Empty, as the next two, where nothing is asked: of running text."""
    predictions: list[str | None]
    """What the model says, greedily; None where it was not needed: certainly wrong, and enough others are shown."""
    cut: list[bool]
    """Whether the model was still talking where its prediction ends; such an answer never matches."""
    worse_loss_sums: list[float] = field(default_factory=list)
    """Of the worse answers, where pairs are compared."""
    worse_label_counts: list[int] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Per label."""
        return math.fsum(self.loss_sums) / sum(self.label_counts)

    @property
    def exact_match(self) -> float | None:
        """None where nothing is asked."""
        return sum(self.exact) / len(self.exact) if self.exact else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Raises: KeyError, TypeError if it is not what ``to_json`` gave."""
        return cls(**{each.name: list(fields[each.name]) for each in dataclass_fields(cls)})


class AnswerKind(StrEnum):
    """What the expected answers of some rows are, and so what tells a good one."""

    LABELS = "labels"
    """Few different short ones: right or wrong, label by label."""
    SHORT = "short"
    """Right or wrong."""
    TEXT = "text"
    """So long that nobody expects them word for word: how near they come counts."""


def answer_kind(encoded: Sequence[EncodedExample]) -> AnswerKind:
    """Nine in ten short references are short answers; they are labels where each occurs twice on average."""
    short = sum(len(example.answer_ids) <= SHORT_ANSWER_TOKENS for example in encoded)
    if short < 0.9 * len(encoded):
        return AnswerKind.TEXT
    different = len({normalise_answer(example.answer) for example in encoded})
    return AnswerKind.LABELS if 2 <= different <= min(MOST_LABELS, len(encoded) / 2) else AnswerKind.SHORT


def text_sample(encoded: Sequence[EncodedExample], shown: int = SHOWN) -> list[int]:
    """Return which answers are written out where text scores are wanted: evenly over all, the same before and after."""
    count = min(shown, len(encoded))
    return [number * len(encoded) // count for number in range(count)]


def default_max_new_tokens(encoded: Sequence[EncodedExample]) -> int:
    """Somewhat more than the longest reference."""
    return max(len(example.answer_ids) for example in encoded) + 8


def evaluate_heldout(
    module: nn.Module,
    tokenizer: Any,
    encoded: Sequence[EncodedExample],
    *,
    max_new_tokens: int | None = None,
    batch_tokens: int = 2048,
    shown: int = SHOWN,
    progress: Progress | None = None,
) -> HeldoutScores:
    """Score every example under the module as it is (an adapter that is switched off stays off).

    ``max_new_tokens`` cuts generated answers. Of the answers that are certainly wrong the first ``shown`` are
    generated, for people to read (of texts those of ``text_sample``, so that scores of them are of a fair sample); of
    those that another tokenisation could still make right, all. ``batch_tokens`` bounds how much is done between two
    calls of ``progress``.
    Raises: InvalidDataset without examples; TrainingError if a loss is not a finite number.
    """
    if not encoded:
        raise InvalidDataset("there are no held-out examples to evaluate on")
    with evaluating(module), torch.inference_mode():
        evaluation = _Evaluation(module, tokenizer, encoded, shown, batch_tokens, progress)
        return evaluation.run(max_new_tokens or default_max_new_tokens(encoded))


class _Evaluation:
    """One evaluation on its way."""

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        encoded: Sequence[EncodedExample],
        shown: int,
        batch_tokens: int,
        progress: Progress | None,
    ) -> None:
        self._module = module
        self._tokenizer = tokenizer
        self._encoded = encoded
        self._shown = shown
        self._batch_tokens = batch_tokens
        self._progress = progress
        self._done = 0
        self._loss_sums = [0.0] * len(encoded)
        self._exact = [False] * len(encoded)
        self._predictions: list[str | None] = [None] * len(encoded)
        self._cut = [False] * len(encoded)
        self._open: list[int] = []
        """Not the reference token by token, but perhaps the same text."""
        self._wrong: list[int] = []

    def run(self, max_new_tokens: int) -> HeldoutScores:
        self._score()
        self._generate(self._worth_reading(), max_new_tokens)
        # Whether these match is at stake: they may be as long as any reference.
        self._generate(self._open, max(max_new_tokens, default_max_new_tokens(self._encoded)))
        counts = [len(example.answer_ids) for example in self._encoded]
        return HeldoutScores(self._loss_sums, counts, self._exact, self._predictions, self._cut)

    def _worth_reading(self) -> list[int]:
        if answer_kind(self._encoded) is AnswerKind.TEXT:
            return sorted(set(self._wrong) & set(text_sample(self._encoded, self._shown)))
        return sorted(self._wrong)[: self._shown]

    def _score(self) -> None:
        forward = LabelForward.choose(self._module, self._encoded[:2])
        lengths = [len(example.input_ids) for example in self._encoded]
        for batch in length_batches(lengths, self._batch_tokens):
            rows = [self._encoded[index] for index in batch]
            losses, likeliest = (labels.tolist() for labels in forward.predict(rows))
            start = 0
            for index, row in zip(batch, rows, strict=True):
                end = start + len(row.answer_ids)
                self._loss_sums[index] = math.fsum(losses[start:end])
                self._judge(index, likeliest[start:end])
                start = end
            self._tell(sum(self._exact) + max(0, len(self._wrong) - self._shown))
        if not all(map(math.isfinite, self._loss_sums)):
            raise TrainingError(
                "the model's loss on held-out examples is not a finite number: its weights have diverged; "
                "a lower learning rate would help"
            )

    def _judge(self, index: int, likeliest: list[int]) -> None:
        example = self._encoded[index]
        answer = example.answer_ids
        said = next(
            (n for n, (token, wanted) in enumerate(zip(likeliest, answer, strict=True)) if token != wanted), None
        )
        if said is None:
            self._exact[index] = True
            self._predictions[index] = example.answer
            return
        # Greedy decoding says the reference up to here, then this token.
        beginning = self._decode([*answer[:said], likeliest[said]])
        ended = likeliest[said] == answer[-1]
        possible = is_exact_match(beginning, example.answer) if ended else may_become(beginning, example.answer)
        (self._open if possible else self._wrong).append(index)

    def _generate(self, indices: Sequence[int], max_new_tokens: int) -> None:
        stop_ids = stop_ids_of(self._module, self._tokenizer) | {row.answer_ids[-1] for row in self._encoded}
        lengths = [len(self._encoded[index].prompt_ids) + max_new_tokens for index in indices]
        for batch in length_batches(lengths, self._batch_tokens):
            chosen = [indices[position] for position in batch]
            prompts = [self._encoded[index].prompt_ids for index in chosen]
            said = generate_batch(
                self._module, self._tokenizer, prompts, max_new_tokens=max_new_tokens, stop_ids=stop_ids
            )
            for index, ids in zip(chosen, said, strict=True):
                answer = self._decode(ids)
                self._predictions[index] = answer
                self._cut[index] = len(ids) == max_new_tokens
                self._exact[index] = not self._cut[index] and is_exact_match(answer, self._encoded[index].answer)
            self._tell(self._done + len(chosen))

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _tell(self, done: int) -> None:
        self._done = done
        if self._progress is not None:
            self._progress(done, len(self._encoded))
