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
from terakoya.data.tokenization import EncodedExample, EncodedSet, encode_examples
from terakoya.domain.datasets import Example
from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import InvalidConfig, InvalidDataset
from terakoya.training.spec import RunSpec

_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Material:
    train: list[Example]
    heldout: list[Example]


@dataclass(frozen=True, slots=True)
class EncodedMaterial:
    train: list[EncodedExample]
    """One a conversation, where the template allows it."""
    heldout: list[EncodedExample]
    """One an answer."""
    split_conversations: int = 0
    """Training conversations that had to become one example an answer."""
    long_rows: LongRowReport | None = None
    """What became of training rows longer than the run takes; None where all fit."""
    unscored: int = 0
    """Held-out rows that are longer than the model reads, and so left out."""

    @property
    def longest(self) -> int:
        return max(len(example.input_ids) for example in (*self.train, *self.heldout))


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
    encoded = encode_train(material.train, tokenizer, progress=lambda count: progress(count, total))
    judged = encode_heldout(material.heldout, tokenizer, progress=lambda count: progress(trained + count, total))
    train, heldout = encoded.complete(), judged.complete()
    limit = row_limit(max_length, context)
    if long_rows == "refuse":
        _refuse_long_rows([*train, *heldout], limit, context)
        return EncodedMaterial(train, heldout, encoded.split_conversations)
    told = report([(row.row, len(row.input_ids), row.label_spans) for row in train], limit, long_rows)
    readable = [example for example in heldout if len(example.input_ids) <= context]
    return EncodedMaterial(
        _fitted(train, limit, long_rows),
        readable,
        encoded.split_conversations,
        told if told.rows else None,
        len(heldout) - len(readable),
    )


def row_limit(max_length: int | None, context: int) -> int:
    """Return the most tokens a row may have."""
    return context if max_length is None else min(max_length, context)


def encode_train(
    examples: Sequence[Example], tokenizer: Any, *, progress: Callable[[int], None] | None = None
) -> EncodedSet:
    return encode_examples(examples, tokenizer, join_answers=True, progress=progress)


def encode_heldout(
    examples: Sequence[Example], tokenizer: Any, *, progress: Callable[[int], None] | None = None
) -> EncodedSet:
    return encode_examples(examples, tokenizer, progress=progress)


def _fitted(examples: Sequence[EncodedExample], limit: int, policy: LongRows) -> list[EncodedExample]:
    """Apply the policy to the long ones. Raises: InvalidDataset if nothing is left."""
    fitted = [
        example
        if len(example.input_ids) <= limit
        else replace(example, input_ids=example.input_ids[part.start : part.end], label_spans=part.label_spans)
        for example in examples
        for part in pieces(len(example.input_ids), example.label_spans, limit, policy)
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
