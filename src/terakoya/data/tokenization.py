"""Examples to tokens with the answer marked as what is learned. A row that cannot be learned whole is refused by
its number, never cut. Knows the tokenizer only through its chat format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from terakoya.data.chat_template import ChatFormat, chat_format
from terakoya.data.examples import answers
from terakoya.domain.datasets import Example
from terakoya.exceptions import InvalidDataset

_SHOWN_ROWS = 10
_BATCH = 256


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One answer and all that comes before it."""

    row: int
    """Line in the uploaded file. A conversation with several answers gives one example for each."""
    input_ids: list[int]
    labels_start: int
    """Tokens from here on are labels: the answer and its end token, which is last."""
    prompt: str = ""
    """The user's last message, for people to read."""
    answer: str = ""

    @property
    def prompt_ids(self) -> list[int]:
        return self.input_ids[: self.labels_start]

    @property
    def answer_ids(self) -> list[int]:
        return self.input_ids[self.labels_start :]


@dataclass(frozen=True, slots=True)
class RefusedRow:
    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class EncodedSet:
    examples: list[EncodedExample]
    refused: list[RefusedRow]

    def complete(self) -> list[EncodedExample]:
        """Return the examples. Raises: InvalidDataset naming the refused rows if there are any."""
        if not self.refused:
            return self.examples
        count = len(self.refused)
        shown = "" if count <= _SHOWN_ROWS else f"; the first {_SHOWN_ROWS}"
        reasons = "\n".join(f"row {refused.row}: {refused.reason}" for refused in self.refused[:_SHOWN_ROWS])
        total = len(self.examples) + count
        raise InvalidDataset(f"{count:,} of {total:,} answers cannot be used with this model{shown}:\n{reasons}")


def encode_examples(
    examples: Iterable[Example],
    tokenizer: Any,
    *,
    max_length: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> EncodedSet:
    """Encode every answer of every example, in order; ``progress`` hears how many examples have been taken up.

    ``max_length``: an answer with more tokens, its prompt included, is refused; None refuses none for its length.
    Raises: ModelLoadError if the tokenizer gives answers no end.
    """
    format = chat_format(tokenizer)
    encoded: list[EncodedExample] = []
    refused: list[RefusedRow] = []
    taken = 0

    def counted() -> Iterator[Example]:
        nonlocal taken
        for example in examples:
            taken += 1
            yield example

    for batch in _batches(answers(counted())):
        for written in _written(batch, format):
            if isinstance(written, RefusedRow):
                refused.append(written)
                continue
            try:
                encoded.append(_label(*written, format.end_token_id, max_length))
            except InvalidDataset as error:
                refused.append(RefusedRow(written[0].row, str(error)))
        if progress is not None:
            progress(taken)
    return EncodedSet(encoded, refused)


def _batches(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while batch := list(islice(examples, _BATCH)):
        yield batch


def _written(
    batch: Sequence[Example], format: ChatFormat
) -> Iterator[tuple[Example, list[int], list[int]] | RefusedRow]:
    """Yield each example with its prompt's tokens and all its tokens, or why the template refuses it."""
    try:
        prompts = format.prompts([example.prompt for example in batch])
        wholes = format.wholes([example.messages for example in batch])
    except InvalidDataset as error:
        if len(batch) == 1:
            yield RefusedRow(batch[0].row, str(error))
            return
        for example in batch:  # one of them; the others are fine
            yield from _written([example], format)
        return
    yield from zip(batch, prompts, wholes, strict=True)


def _label(
    example: Example, prompt: list[int], whole: list[int], end_token_id: int, max_length: int | None
) -> EncodedExample:
    """Mark what follows the prompt, up to the last end token. Raises: InvalidDataset with the reason."""
    start = len(prompt)
    if whole[:start] != prompt:
        raise InvalidDataset(
            "the tokens of its prompt change when the answer follows, so what is learned could never be asked for; "
            "removing white space from the answer's beginning may help"
        )
    answer = whole[start:]
    if end_token_id not in answer:
        raise InvalidDataset("its answer does not end with the end-of-turn token, so a model would not learn to stop")
    ids = whole[: len(whole) - answer[::-1].index(end_token_id)]  # what a template writes after the end is not learned
    if len(ids) == start + 1:
        raise InvalidDataset("no token of its answer would be learned: the chat template drops it")
    if max_length is not None and len(ids) > max_length:
        raise InvalidDataset(f"it has {len(ids):,} tokens, more than the maximum length {max_length:,}")
    return EncodedExample(example.row, ids, start, example.prompt[-1].content, example.answer)
