"""The shapes a row can have, one class each, with the names of its fields as values: a table of well-known names is
in ``formats``, a person's own names come from a mapping. Pure: one row in, its content or the reason why not out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from terakoya.data.conversation import READ_FIELDS, check_turns, read_filled, read_messages, read_text
from terakoya.data.problems import BadRow
from terakoya.domain.datasets import DatasetKind, Message

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What a row holds: messages, perhaps with a worse answer, or running text."""

    messages: tuple[Message, ...] = ()
    rejected: str | None = None
    text: str | None = None


class Shape(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> DatasetKind: ...

    @property
    def required(self) -> tuple[str, ...]:
        """Fields without which a row is not of this shape."""
        ...

    @property
    def split(self) -> str:
        """The field that says to which part the row belongs."""
        ...

    def read(self, row: Row) -> Content:
        """Return what the row holds; it has the required fields. Raises: BadRow."""
        ...

    def unused(self, row: Row) -> Iterable[str]:
        """Return the fields of a row that ``read`` does not look at."""
        ...


@dataclass(frozen=True, slots=True)
class FlatShape:
    """One question and one answer, each in a field of its own: text, or messages."""

    name: str
    prompt: str
    answer: str
    addition: str | None = None
    """A field whose text, if any, follows the prompt after a blank line."""
    system: str = "system"
    split: str = "split"
    kind: DatasetKind = DatasetKind.CONVERSATION

    @property
    def required(self) -> tuple[str, ...]:
        return self.prompt, self.answer

    def read(self, row: Row) -> Content:
        prompt = _read_prompt(row, self.prompt, self.addition)
        messages = (*_read_system(row, self.system), *prompt, *_read_answer(row, self.answer))
        check_turns(messages)
        return Content(messages)

    def unused(self, row: Row) -> Iterable[str]:
        return row.keys() - {self.prompt, self.answer, self.addition, self.system, self.split}


@dataclass(frozen=True, slots=True)
class ListShape:
    """A conversation as one list of messages."""

    name: str
    field: str
    system: str = "system"
    split: str = "split"
    kind: DatasetKind = DatasetKind.CONVERSATION

    @property
    def required(self) -> tuple[str, ...]:
        return (self.field,)

    def read(self, row: Row) -> Content:
        messages = (*_read_system(row, self.system), *read_messages(row[self.field], self.field))
        check_turns(messages)
        return Content(messages)

    def unused(self, row: Row) -> Iterator[str]:
        yield from row.keys() - {self.field, self.system, self.split}
        inner = {name for message in row[self.field] for name, value in message.items() if value is not None}
        yield from (f"{self.field}[].{name}" for name in inner - READ_FIELDS)


@dataclass(frozen=True, slots=True)
class TextShape:
    """Running text."""

    name: str
    field: str
    split: str = "split"
    kind: DatasetKind = DatasetKind.TEXT

    @property
    def required(self) -> tuple[str, ...]:
        return (self.field,)

    def read(self, row: Row) -> Content:
        return Content(text=read_filled(row[self.field], self.field))

    def unused(self, row: Row) -> Iterable[str]:
        return row.keys() - {self.field, self.split}


@dataclass(frozen=True, slots=True)
class PreferenceShape:
    """A better and a worse answer to one prompt: texts, or lists of messages that differ in the last."""

    name: str
    chosen: str
    rejected: str
    prompt: str | None = None
    """None: chosen and rejected are whole conversations."""
    addition: str | None = None
    system: str = "system"
    split: str = "split"
    kind: DatasetKind = DatasetKind.PREFERENCE

    @property
    def required(self) -> tuple[str, ...]:
        return (self.chosen, self.rejected) if self.prompt is None else (self.prompt, self.chosen, self.rejected)

    def read(self, row: Row) -> Content:
        prompt = () if self.prompt is None else _read_prompt(row, self.prompt, self.addition)
        chosen, rejected = (_after(prompt, _read_answer(row, field)) for field in (self.chosen, self.rejected))
        if chosen[:-1] != rejected[:-1]:
            raise BadRow("different_prompts")
        messages = (*_read_system(row, self.system), *prompt, *chosen)
        if len(messages) == 1:
            raise BadRow("no_prompt")
        check_turns(messages)
        check_turns((*messages[:-1], rejected[-1]))
        if chosen == rejected:
            raise BadRow("same_answers")
        return Content(messages, rejected=rejected[-1].content)

    def unused(self, row: Row) -> Iterable[str]:
        return row.keys() - {self.prompt, self.addition, self.chosen, self.rejected, self.system, self.split}


def _read_prompt(row: Row, field: str, addition: str | None) -> tuple[Message, ...]:
    if isinstance(row[field], list):
        return read_messages(row[field], field)
    prompt = read_text(row[field], field)
    if addition is not None and row.get(addition) not in (None, ""):
        prompt += "\n\n" + read_text(row[addition], addition)
    return (Message("user", read_filled(prompt, field)),)


def _read_answer(row: Row, field: str) -> tuple[Message, ...]:
    if isinstance(row[field], list):
        return read_messages(row[field], field)
    return (Message("assistant", read_filled(row[field], field)),)


def _read_system(row: Row, field: str) -> tuple[Message, ...]:
    if row.get(field) in (None, ""):
        return ()
    return (Message("system", read_text(row[field], field)),)


def _after(prompt: tuple[Message, ...], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return what follows ``prompt`` where ``messages`` repeat it, as in UltraFeedback."""
    repeats = 0 < len(prompt) < len(messages) and messages[: len(prompt)] == prompt
    return messages[len(prompt) :] if repeats else messages
