"""Preference data to tokens: each pair as two rows behind one prompt, the better answer first. Refuses by number
what is no pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from terakoya.data.tokenization import EncodedSet, RefusedRow, RowSink, encode_last_answers
from terakoya.domain.datasets import Example, Message

_NO_PAIR = "it has one answer and no worse one to compare it with; the objective 'supervised' learns from such rows"
_TOLD_EVERY = 128


def encode_pairs(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    progress: Callable[[int], None] | None = None,
    into: RowSink | None = None,
) -> EncodedSet:
    """Return two rows a pair, better then worse; of a conversation only the last answer is compared.

    ``progress`` hears how many pairs are done. Rows go ``into`` a sink if one is given.
    """
    encoded: RowSink = [] if into is None else into
    refused: list[RefusedRow] = []
    done = 0

    def sides() -> Iterator[Example]:
        for example in examples:
            if example.rejected is None:
                refused.append(RefusedRow(example.row, _NO_PAIR))
            else:
                yield from _sides(example)

    found = encode_last_answers(sides(), tokenizer)
    for done, (chosen, rejected) in enumerate(zip(found, found, strict=True), start=1):
        if isinstance(chosen, RefusedRow):
            refused.append(RefusedRow(chosen.row, f"of its better answer: {chosen.reason}"))
        elif isinstance(rejected, RefusedRow):
            refused.append(RefusedRow(rejected.row, f"of its worse answer: {rejected.reason}"))
        elif chosen.input_ids == rejected.input_ids:
            refused.append(RefusedRow(chosen.row, "both of its answers are the same, so neither can be preferred"))
        else:
            encoded.extend((chosen, rejected))
        if progress is not None and done % _TOLD_EVERY == 0:
            progress(done)
    if progress is not None and done % _TOLD_EVERY:
        progress(done)
    return EncodedSet.of(encoded, sorted(refused, key=lambda each: each.row))


def _sides(pair: Example) -> Iterator[Example]:
    yield pair
    yield replace(pair, messages=(*pair.prompt, Message("assistant", pair.rejected or "")))
