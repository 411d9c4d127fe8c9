"""Examples to tokens with the answers marked as what is learned. A row that cannot be learned whole is refused by
its number, never cut. Knows the tokenizer only through its chat format.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Protocol

from terakoya.data.chat_template import ChatFormat, chat_format
from terakoya.data.examples import answers
from terakoya.domain.datasets import Example
from terakoya.exceptions import InvalidDataset

_SHOWN_ROWS = 10
_BATCH = 256


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One answer and all that comes before it, or a conversation with all its answers as labels."""

    row: int
    """Line in the uploaded file."""
    input_ids: list[int]
    label_spans: tuple[tuple[int, int], ...]
    """Half-open spans of the tokens that are labels: each an answer and its end token. The last ends the row."""
    prompt: str = ""
    """The last message before the last answer, for people to read."""
    answer: str = ""

    @property
    def labels_start(self) -> int:
        """Where the last answer begins."""
        return self.label_spans[-1][0]

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


class RowSink(Protocol):
    """What takes rows as they are made, such as a list."""

    def append(self, row: EncodedExample, /) -> None: ...
    def extend(self, rows: Iterable[EncodedExample], /) -> None: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class EncodedSet:
    examples: list[EncodedExample]
    """None of them where they went into a sink instead."""
    refused: list[RefusedRow]
    split_conversations: int = 0
    """How many conversations could not be one example, because a later turn changes the tokens of earlier ones."""
    elsewhere: int = 0
    """How many went into a sink."""

    @classmethod
    def of(cls, rows: RowSink, refused: list[RefusedRow], split_conversations: int = 0) -> EncodedSet:
        if isinstance(rows, list):
            return cls(rows, refused, split_conversations)
        return cls([], refused, split_conversations, len(rows))

    def complete(self) -> list[EncodedExample]:
        """Return the examples. Raises: InvalidDataset naming the refused rows if there are any."""
        if not self.refused:
            return self.examples
        count = len(self.refused)
        shown = "" if count <= _SHOWN_ROWS else f"; the first {_SHOWN_ROWS}"
        reasons = "\n".join(f"row {refused.row}: {refused.reason}" for refused in self.refused[:_SHOWN_ROWS])
        total = len(self.examples) + self.elsewhere + count
        raise InvalidDataset(f"{count:,} of {total:,} examples cannot be used with this model{shown}:\n{reasons}")


def encode_examples(
    examples: Iterable[Example],
    tokenizer: Any,
    *,
    max_length: int | None = None,
    join_answers: bool = False,
    progress: Callable[[int], None] | None = None,
    into: RowSink | None = None,
) -> EncodedSet:
    """Encode every answer of every example, in order; ``progress`` hears how many examples have been taken up.

    Rows go ``into`` a sink if one is given, and no more than a batch of them is then held at once.

    A conversation with several answers gives one row for each of them; with ``join_answers`` it gives one row in
    which all of them are labels, wherever that leaves every label and all that comes before it as they were.
    ``max_length``: an answer with more tokens, its prompt included, is refused; None refuses none for its length.
    Raises: ModelLoadError if the tokenizer gives answers no end.
    """
    encoded: RowSink = [] if into is None else into
    refused: list[RefusedRow] = []
    split = 0
    found = _encoded_answers(examples, chat_format(tokenizer), max_length, progress)
    for _, conversation in groupby(found, key=lambda each: each[0]):
        turns: list[EncodedExample] = []
        for _, each in conversation:
            if isinstance(each, RefusedRow):
                refused.append(each)
            else:
                turns.append(each)
        joined = _joined(turns) if join_answers and len(turns) > 1 else None
        split += join_answers and len(turns) > 1 and joined is None
        encoded.extend(turns if joined is None else [joined])
    return EncodedSet.of(encoded, refused, split)


def encode_last_answers(
    examples: Iterable[Example], tokenizer: Any, *, max_length: int | None = None
) -> Iterator[EncodedExample | RefusedRow]:
    """Yield for each example, in order, its last answer and all before it, or why it is refused."""
    yield from _encode_each(examples, chat_format(tokenizer), max_length)


def _encode_each(
    examples: Iterable[Example], format: ChatFormat, max_length: int | None
) -> Iterator[EncodedExample | RefusedRow]:
    source = iter(examples)
    while batch := list(islice(source, _BATCH)):
        written = iter(list(_written([each for each in batch if _has_answer(each)], format)))
        for example in batch:
            yield _encoded(next(written), format, max_length) if _has_answer(example) else _unanswered(example)


def _encoded_answers(
    examples: Iterable[Example], format: ChatFormat, max_length: int | None, progress: Callable[[int], None] | None
) -> Iterator[tuple[int, EncodedExample | RefusedRow]]:
    """Yield every answer, or why it is refused, with the position of its conversation."""
    positions: deque[int] = deque()
    taken = told = 0

    def cut() -> Iterator[Example]:
        nonlocal taken
        for taken, example in enumerate(examples, start=1):
            # One without an answer is refused further down, rather than passed over.
            for each in list(answers([example])) or [example]:
                positions.append(taken)
                yield each

    for encoded in _encode_each(cut(), format, max_length):
        if progress is not None and taken > told:
            progress(taken)
            told = taken
        yield positions.popleft(), encoded


def _has_answer(example: Example) -> bool:
    return len(example.messages) > 1 and example.messages[-1].role == "assistant"


def _unanswered(example: Example) -> RefusedRow:
    if example.text is not None:
        return RefusedRow(example.row, "it is running text without an answer; the objective 'text' learns from such")
    return RefusedRow(example.row, "it has no answer to learn: no message of the assistant follows a prompt")


def _encoded(
    written: tuple[Example, list[int], list[int]] | RefusedRow, format: ChatFormat, max_length: int | None
) -> EncodedExample | RefusedRow:
    if isinstance(written, RefusedRow):
        return written
    try:
        return _label(*written, format.end_token_id, max_length)
    except InvalidDataset as error:
        return RefusedRow(written[0].row, str(error))


def _joined(turns: Sequence[EncodedExample]) -> EncodedExample | None:
    """Return the last turn with the labels of all; None if a label would then follow other tokens than it did.

    A causal model's output at a position depends on nothing after it, so equal beginnings mean equal losses.
    """
    last = turns[-1]
    if any(last.input_ids[: len(turn.input_ids)] != turn.input_ids for turn in turns):
        return None
    spans = tuple(span for turn in turns for span in turn.label_spans)
    return EncodedExample(last.row, last.input_ids, spans, last.prompt, last.answer)


def _written(
    batch: Sequence[Example], format: ChatFormat
) -> Iterator[tuple[Example, list[int], list[int]] | RefusedRow]:
    """Yield each example with its prompt's tokens and all its tokens, or why the template refuses it."""
    if not batch:  # an empty list of conversations looks to a tokenizer like one empty conversation
        return
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
    return EncodedExample(example.row, ids, ((start, len(ids)),), example.prompt[-1].content, example.answer)
