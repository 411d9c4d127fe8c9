"""From stored rows to tokenised examples to learn from and to be judged by. Refuses by row number what cannot be
learned whole, unless the request says what to do with long rows; drops nothing silently. Knows no model beyond its
tokenizer and context length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from terakoya.data.examples import read_examples
from terakoya.data.long_rows import LongRowReport, LongRows, pieces, report
from terakoya.data.splits import split_examples
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.datasets import Example
from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import InvalidConfig, InvalidDataset, ModelLoadError
from terakoya.training.objectives.encodings import Encoding
from terakoya.training.spec import RunSpec

_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Material:
    train: list[Example]
    heldout: list[Example]


@dataclass(frozen=True, slots=True)
class EncodedMaterial:
    train: list[EncodedExample]
    """As many rows for each example as the objective says, one example's after the other's."""
    heldout: list[EncodedExample]
    """One an answer, window or better answer of a pair."""
    heldout_rejected: list[EncodedExample]
    """The worse answers, in the order of ``heldout``; none unless pairs are compared."""
    rows_per_example: int = 1
    split_conversations: int = 0
    """Training conversations that had to become one example an answer."""
    long_rows: LongRowReport | None = None
    """What became of training rows longer than the run takes; None where all fit."""
    unscored: int = 0
    """Held-out rows that are longer than the model reads, and so left out."""

    @property
    def examples(self) -> int:
        """How many are trained on."""
        return len(self.train) // self.rows_per_example

    @property
    def longest_example(self) -> int:
        """Tokens of all rows of one: an example is never cut in two."""
        each = self.rows_per_example
        lengths = [len(row.input_ids) for row in self.train]
        trained = max(sum(lengths[start : start + each]) for start in range(0, len(lengths), each))
        return max(trained, self.longest)

    @property
    def longest(self) -> int:
        return max(len(row.input_ids) for row in (*self.train, *self.heldout, *self.heldout_rejected))


def read_material(spec: RunSpec, observer: Observer) -> Material:
    """Read the dataset and split it. Raises: InvalidDataset if nothing is left to learn from."""
    examples = list(read_examples(spec.rows_path))
    train, heldout = split_examples(examples, spec.resolved.heldout_fraction, spec.resolved.seed)
    if not train:
        raise InvalidDataset(
            f"the dataset {spec.dataset_name!r} has no rows to train on: all {len(examples)} are held out; "
            'add rows that do not say "split": "heldout"'
        )
    most = spec.resolved.max_evaluation_examples
    if not heldout:
        observer.notify(
            EventType.WARNING,
            code="nothing_held_out",
            message="all rows have the same prompt, so none can be held out: there will be no scores"
            if len(examples) > 1
            else "one row is too little to hold any out: there will be no scores",
        )
    elif len(heldout) > most:
        chosen = sorted(random.Random(spec.resolved.seed).sample(range(len(heldout)), most))  # noqa: S311 - reproducible
        observer.notify(
            EventType.LOG,
            message=f"{most} of {len(heldout)} held-out rows are scored (evaluation.max_examples); "
            "the others are neither scored nor trained on",
        )
        heldout = [heldout[index] for index in chosen]
    return Material(train, heldout)


def encode_material(
    material: Material,
    tokenizer: Any,
    encoding: Encoding,
    *,
    max_length: int | None,
    context: int,
    long_rows: LongRows = "refuse",
    progress: Callable[[int, int], None],
) -> EncodedMaterial:
    """Tokenise both parts.

    Raises: InvalidDataset for rows that teach nothing or never end, and if ``long_rows`` leaves nothing to learn;
    InvalidConfig for rows longer than ``max_length``, or than the model's context where that is None, if they are to
    be refused.
    """
    trained, total = len(material.train), len(material.train) + len(material.heldout)
    limit = encoding.limit(max_length, context)
    encoded = encoding.train(material.train, tokenizer, length=limit, progress=lambda count: progress(count, total))
    judged = encoding.heldout(
        material.heldout, tokenizer, length=limit, progress=lambda count: progress(trained + count, total)
    )
    train, heldout = encoded.complete(), judged.complete()
    each = encoding.rows_per_example
    if long_rows == "refuse":
        _refuse_long_rows([*train, *heldout], limit, context)
        told, unscored = None, 0
    else:
        told = report([(row.row, len(row.input_ids), row.label_spans) for row in train], limit, long_rows)
        judged_rows = len(heldout)
        train, heldout = _fitted(train, limit, long_rows, each), _readable(heldout, context, each)
        unscored = judged_rows - len(heldout)
    return EncodedMaterial(
        train,
        heldout[::each],
        heldout[1::each] if each > 1 else [],
        rows_per_example=each,
        split_conversations=encoded.split_conversations,
        long_rows=told if told and told.rows else None,
        unscored=unscored // each,
    )


def refuse_unknown_tokens(material: EncodedMaterial, tokenizer: Any, vocabulary: int) -> None:
    """Raises: ModelLoadError if a row has a token that the model's ``vocabulary`` embeddings do not hold."""
    for row in (*material.train, *material.heldout, *material.heldout_rejected):
        if (largest := max(row.input_ids)) >= vocabulary:
            token = tokenizer.convert_ids_to_tokens(largest)
            raise ModelLoadError(
                f"row {row.row} has the token {token!r} with number {largest:,}, and the model knows {vocabulary:,} "
                "tokens: its tokenizer and its weights do not belong together; import the model with its own tokenizer"
            )


def _readable(rows: Sequence[EncodedExample], context: int, each: int) -> list[EncodedExample]:
    """The examples of which the model can read every row."""
    return [row for example in _examples(rows, each) if _longest(example) <= context for row in example]


def _examples(rows: Sequence[EncodedExample], each: int) -> list[Sequence[EncodedExample]]:
    return [rows[start : start + each] for start in range(0, len(rows), each)]


def _longest(rows: Sequence[EncodedExample]) -> int:
    return max(len(row.input_ids) for row in rows)


def _fitted(rows: Sequence[EncodedExample], limit: int, policy: LongRows, each: int) -> list[EncodedExample]:
    """Apply the policy to the long ones; a pair stays or goes whole. Raises: InvalidDataset if nothing is left."""
    if each > 1:
        fitted = _readable(rows, limit, each)
    else:
        fitted = [
            row
            if len(row.input_ids) <= limit
            else replace(row, input_ids=row.input_ids[part.start : part.end], label_spans=part.label_spans)
            for row in rows
            for part in pieces(len(row.input_ids), row.label_spans, limit, policy)
        ]
    if not fitted:
        raise InvalidDataset(
            f"every training row has more than {limit:,} tokens and long_rows={policy!r} leaves nothing of them to "
            "learn from; a larger max_length would work"
        )
    return fitted


def _refuse_long_rows(examples: Sequence[EncodedExample], limit: int, context: int) -> None:
    long = [example for example in examples if len(example.input_ids) > limit]
    if not long:
        return
    longest = max(len(example.input_ids) for example in long)
    shown = ", ".join(f"{example.row} ({len(example.input_ids):,})" for example in long[:_SHOWN_ROWS])
    more = f" and {len(long) - _SHOWN_ROWS} more" if len(long) > _SHOWN_ROWS else ""
    remedy = (
        f"max_length={longest} takes them all, long_rows 'drop', 'truncate' or 'split' does without"
        if longest <= context
        else f"the model knows {context:,} positions at most, so shorten these rows or remove them, or choose "
        "long_rows 'drop', 'truncate' or 'split'"
    )
    raise InvalidConfig(
        f"{len(long):,} of {len(examples):,} examples have more than {limit:,} tokens: "
        f"rows (tokens) {shown}{more}; {remedy}"
    )
