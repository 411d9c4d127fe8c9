"""Running text to rows of tokens: each document followed by its end, cut into windows of which every token but the
first is a label. Knows nothing of chat formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from terakoya.data.tokenization import EncodedExample, EncodedSet, RefusedRow, RowSink
from terakoya.domain.datasets import Example
from terakoya.exceptions import ModelLoadError

_BATCH = 64


def encode_documents(
    examples: Iterable[Example],
    tokenizer: Any,
    *,
    window: int,
    progress: Callable[[int], None] | None = None,
    into: RowSink | None = None,
) -> EncodedSet:
    """Encode every document; ``progress`` hears how many have been taken up. Rows go ``into`` a sink if one is given.

    A window begins with the last token of the one before it, so that every token of a document but the first is a
    label exactly once.
    Raises: ModelLoadError if the tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelLoadError(
            "the tokenizer has no end-of-sequence token, so a model would never learn where a text ends; "
            "a tokenizer_config.json that names an eos_token would work"
        )
    encoded: RowSink = [] if into is None else into
    refused: list[RefusedRow] = []
    source = iter(examples)
    taken = 0
    while batch := list(islice(source, _BATCH)):
        for example, ids in zip(batch, _tokens(batch, tokenizer), strict=True):
            if example.text is None:
                refused.append(
                    RefusedRow(
                        example.row, "it is no running text; the objective 'supervised' learns from conversations"
                    )
                )
            elif len(ids) < 2:
                refused.append(RefusedRow(example.row, "its text is empty"))
            else:
                encoded.extend(_windows(example.row, ids, window))
        taken += len(batch)
        if progress is not None:
            progress(taken)
    return EncodedSet.of(encoded, refused)


def _tokens(batch: Sequence[Example], tokenizer: Any) -> list[list[int]]:
    """Ids with whatever the tokenizer puts before a text, and one end. Text that looks like a control token is text."""
    end = tokenizer.eos_token_id
    rows: list[list[int]] = tokenizer([each.text or "" for each in batch], split_special_tokens=True)["input_ids"]
    return [ids if ids and ids[-1] == end else [*ids, end] for ids in rows]


def _windows(row: int, ids: list[int], window: int) -> list[EncodedExample]:
    """[n] -> windows of at most ``window`` tokens, 2 at least."""
    starts = range(0, len(ids) - 1, window - 1)
    return [_window(row, ids[start : start + window]) for start in starts]


def _window(row: int, ids: list[int]) -> EncodedExample:
    return EncodedExample(row, ids, ((1, len(ids)),))
