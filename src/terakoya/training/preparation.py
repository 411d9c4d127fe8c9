"""From stored rows to tokenised examples to learn from and to be judged by. Refuses by row number what cannot be
learned whole, unless the request says what to do with long rows; drops nothing silently. Knows no model beyond its
tokenizer and context length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terakoya.data.long_rows import LongRowReport, LongRows, Piece, pieces, report
from terakoya.data.row_view import RowView
from terakoya.data.splits import split_rows
from terakoya.data.stored_rows import StoredRows
from terakoya.data.token_store import largest_token, lengths_of
from terakoya.data.tokenization import EncodedExample
from terakoya.domain.datasets import Example
from terakoya.domain.events import EventType, Observer
from terakoya.exceptions import InvalidConfig, InvalidDataset, ModelLoadError
from terakoya.training.objectives.encodings import Encoding
from terakoya.training.spec import RunSpec
from terakoya.training.token_cache import TokenCache

_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Material:
    train: Sequence[Example]
    heldout: Sequence[Example]


@dataclass(frozen=True, slots=True)
class EncodedMaterial:
    train: Sequence[EncodedExample]
    """As many rows for each example as the objective says, one example's after the other's; on disk if there is a
    cache."""
    heldout: Sequence[EncodedExample]
    """One an answer, window or better answer of a pair."""
    heldout_rejected: Sequence[EncodedExample]
    """The worse answers, in the order of ``heldout``; none unless pairs are compared."""
    rows_per_example: int = 1
    split_conversations: int = 0
    """Training conversations that had to become one example an answer."""
    long_rows: LongRowReport | None = None
    """What became of training rows longer than the run takes; None where all fit."""
    unscored: int = 0
    """Held-out rows that are longer than the model reads, and so left out."""
    was_ready: bool = False
    """Whether the rows to train on had been tokenised by an earlier run."""

    @property
    def examples(self) -> int:
        """How many are trained on."""
        return len(self.train) // self.rows_per_example

    @property
    def longest_example(self) -> int:
        """Tokens of all rows of one: an example is never cut in two."""
        return max(int(self.example_lengths.max()), self.longest)

    @property
    def example_lengths(self) -> NDArray[np.int64]:
        """[examples]: tokens of all rows of each that is trained on."""
        lengths: NDArray[np.int64] = lengths_of(self.train).reshape(-1, self.rows_per_example).sum(1)
        return lengths

    @property
    def longest(self) -> int:
        parts = (self.train, self.heldout, self.heldout_rejected)
        return int(max(lengths_of(rows).max(initial=0) for rows in parts))


def read_material(spec: RunSpec, observer: Observer) -> Material:
    """Split the dataset, whose rows stay on disk. Raises: InvalidDataset if nothing is left to learn from."""
    rows = StoredRows.of(spec.rows_path)
    train, heldout = split_rows(rows, spec.resolved.heldout_fraction, spec.resolved.seed)
    if not len(train):
        raise InvalidDataset(
            f"the dataset {spec.dataset_name!r} has no rows to train on: all {len(rows)} are held out; "
            'add rows that do not say "split": "heldout"'
        )
    most = spec.resolved.max_evaluation_examples
    if not len(heldout):
        observer.notify(
            EventType.WARNING,
            code="nothing_held_out",
            message="all rows have the same prompt, so none can be held out: there will be no scores"
            if len(rows) > 1
            else "one row is too little to hold any out: there will be no scores",
        )
    elif len(heldout) > most:
        chosen = sorted(random.Random(spec.resolved.seed).sample(range(len(heldout)), most))  # noqa: S311 - reproducible
        observer.notify(
            EventType.LOG,
            message=f"{most} of {len(heldout)} held-out rows are scored (evaluation.max_examples); "
            "the others are neither scored nor trained on",
        )
        heldout = heldout[chosen]
    return Material(rows.at(train), rows.at(heldout))


def encode_material(
    material: Material,
    tokenizer: Any,
    encoding: Encoding,
    *,
    max_length: int | None,
    context: int,
    long_rows: LongRows = "refuse",
    cache: TokenCache | None = None,
    progress: Callable[[int, int], None],
) -> EncodedMaterial:
    """Tokenise both parts; with a ``cache`` the rows to train on are kept there rather than in memory.

    Raises: InvalidDataset for rows that teach nothing or never end, and if ``long_rows`` leaves nothing to learn;
    InvalidConfig for rows longer than ``max_length``, or than the model's context where that is None, if they are to
    be refused.
    """
    trained, total = len(material.train), len(material.train) + len(material.heldout)
    limit = encoding.limit(max_length, context)
    train, split, was_ready = _train_rows(
        material, tokenizer, encoding, limit, cache, lambda count: progress(count, total)
    )
    judged = encoding.heldout(
        material.heldout, tokenizer, length=limit, progress=lambda count: progress(trained + count, total)
    )
    heldout: Sequence[EncodedExample] = judged.complete()
    each = encoding.rows_per_example
    if long_rows == "refuse":
        _refuse_long_rows([train, heldout], limit, context)
        told, unscored = None, 0
    else:
        told = report(((row.row, len(row.input_ids), row.label_spans) for row in train), limit, long_rows)
        judged_rows = len(heldout)
        train, heldout = _fitted(train, limit, long_rows, each), _readable(heldout, context, each)
        unscored = judged_rows - len(heldout)
    return EncodedMaterial(
        train,
        heldout[::each],
        heldout[1::each] if each > 1 else [],
        rows_per_example=each,
        split_conversations=split,
        long_rows=told if told and told.rows else None,
        unscored=unscored // each,
        was_ready=was_ready,
    )


def _train_rows(
    material: Material,
    tokenizer: Any,
    encoding: Encoding,
    limit: int,
    cache: TokenCache | None,
    progress: Callable[[int], None],
) -> tuple[Sequence[EncodedExample], int, bool]:
    """Return the rows to train on, how many conversations had to become several, and whether a cache had them."""
    if cache is None or not isinstance(material.train, StoredRows):
        encoded = encoding.train(material.train, tokenizer, length=limit, progress=progress)
        return encoded.complete(), encoded.split_conversations, False
    kept = cache.encoded(material.train, encoding, tokenizer, length=limit, progress=progress)
    return kept.rows, kept.split_conversations, kept.was_ready


def refuse_unknown_tokens(material: EncodedMaterial, tokenizer: Any, vocabulary: int) -> None:
    """Raises: ModelLoadError if a row has a token that the model's ``vocabulary`` embeddings do not hold."""
    for rows in (material.train, material.heldout, material.heldout_rejected):
        if largest_token(rows) >= vocabulary:
            row, largest = next((row, largest) for row in rows if (largest := max(row.input_ids)) >= vocabulary)
            token = tokenizer.convert_ids_to_tokens(largest)
            raise ModelLoadError(
                f"row {row.row} has the token {token!r} with number {largest:,}, and the model knows {vocabulary:,} "
                "tokens: its tokenizer and its weights do not belong together; import the model with its own tokenizer"
            )


def _readable(rows: Sequence[EncodedExample], most: int, each: int) -> Sequence[EncodedExample]:
    """The rows of those examples that have none longer than ``most``."""
    lengths = lengths_of(rows).reshape(-1, each)
    if lengths.max(initial=0) <= most:
        return rows
    return RowView(rows, np.flatnonzero(np.repeat(lengths.max(1) <= most, each)))


def _fitted(rows: Sequence[EncodedExample], limit: int, policy: LongRows, each: int) -> Sequence[EncodedExample]:
    """Apply the policy to the long ones; a pair stays or goes whole. Raises: InvalidDataset if nothing is left."""
    fitted = _readable(rows, limit, each) if each > 1 or policy == "drop" else _cut(rows, limit, policy)
    if not len(fitted):
        raise InvalidDataset(
            f"every training row has more than {limit:,} tokens and long_rows={policy!r} leaves nothing of them to "
            "learn from; a larger max_length would work"
        )
    return fitted


def _cut(rows: Sequence[EncodedExample], limit: int, policy: LongRows) -> Sequence[EncodedExample]:
    lengths = lengths_of(rows)
    counts = np.ones(len(rows), np.int64)
    long: dict[int, list[Piece]] = {}
    for place in np.flatnonzero(lengths > limit).tolist():
        long[place] = pieces(int(lengths[place]), rows[place].label_spans, limit, policy)
        counts[place] = len(long[place])
    if not long:
        return rows
    firsts = np.cumsum(counts) - counts
    cut = {int(firsts[place]) + number: piece for place, parts in long.items() for number, piece in enumerate(parts)}
    return RowView(rows, np.repeat(np.arange(len(rows)), counts), cut)


def _refuse_long_rows(parts: Sequence[Sequence[EncodedExample]], limit: int, context: int) -> None:
    lengths = [lengths_of(part) for part in parts]
    long = [(part, place) for part, each in zip(parts, lengths, strict=True) for place in np.flatnonzero(each > limit)]
    if not long:
        return
    longest = int(max(each.max(initial=0) for each in lengths))
    first = [part[int(place)] for part, place in long[:_SHOWN_ROWS]]
    shown = ", ".join(f"{example.row} ({len(example.input_ids):,})" for example in first)
    more = f" and {len(long) - _SHOWN_ROWS} more" if len(long) > _SHOWN_ROWS else ""
    remedy = (
        f"max_length={longest} takes them all, long_rows 'drop', 'truncate' or 'split' does without"
        if longest <= context
        else f"the model knows {context:,} positions at most, so shorten these rows or remove them, or choose "
        "long_rows 'drop', 'truncate' or 'split'"
    )
    raise InvalidConfig(
        f"{len(long):,} of {sum(map(len, parts)):,} examples have more than {limit:,} tokens: "
        f"rows (tokens) {shown}{more}; {remedy}"
    )
