"""The row shapes that are accepted, and how each becomes a conversation. Pure: one parsed row in, one Example or
the reason why not out. Knows nothing of files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from terakoya.domain.datasets import Example, Message, Split
from terakoya.exceptions import InvalidDataset

MESSAGES = "messages"
_MESSAGES_FIELDS = frozenset({MESSAGES, "split"})
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class _FlatFormat:
    """One question and one answer, each in a field of its own."""

    prompt: str
    answer: str
    addition: str | None = None
    """A field whose text, if any, follows the prompt after a blank line."""
    fields: frozenset[str] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        known = {self.prompt, self.answer, self.addition or self.prompt, "system", "split"}
        object.__setattr__(self, "fields", frozenset(known))


FLAT_FORMATS: Mapping[str, _FlatFormat] = {
    "prompt-completion": _FlatFormat("prompt", "completion"),
    "instruction-output": _FlatFormat("instruction", "output", addition="input"),
    "question-answer": _FlatFormat("question", "answer"),
}
ACCEPTED = (
    '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}, '
    '{"prompt": ..., "completion": ...}, {"instruction": ..., "input"?: ..., "output": ...} '
    'or {"question": ..., "answer": ...}'
)
_SPLITS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "heldout": Split.HELDOUT,
    "held_out": Split.HELDOUT,
    "test": Split.HELDOUT,
    "validation": Split.HELDOUT,
    "valid": Split.HELDOUT,
    "val": Split.HELDOUT,
    "dev": Split.HELDOUT,
    "eval": Split.HELDOUT,
}


def parse_line(line: str) -> dict[str, Any]:
    """Return the JSON object of one line. Raises: InvalidDataset with the reason."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidDataset(f"not JSON: {error.msg} at character {error.colno}") from error
    except RecursionError as error:
        raise InvalidDataset("not a row: nested too deeply") from error
    except ValueError as error:
        raise InvalidDataset(f"not a row: {error}") from error
    if not isinstance(row, dict):
        raise InvalidDataset(f"not a JSON object but {_kind(row)}")
    return row


def detect_format(row: Mapping[str, Any]) -> str:
    """Return "messages" or a key of FLAT_FORMATS. Raises: InvalidDataset naming what is missing."""
    if MESSAGES in row:
        return MESSAGES
    for name, flat in FLAT_FORMATS.items():
        if flat.prompt in row and flat.answer in row:
            return name
    for flat in FLAT_FORMATS.values():
        for present, missing in ((flat.prompt, flat.answer), (flat.answer, flat.prompt)):
            if present in row:
                raise InvalidDataset(f"it has {present!r} but no {missing!r}")
    raise InvalidDataset(f"it has none of the known fields, only {_names(row)}")


def parse_row(row: Mapping[str, Any], number: int) -> Example:
    """Return the conversation of row ``number``. Raises: InvalidDataset with the reason."""
    name = detect_format(row)
    messages = _listed(row[MESSAGES]) if name == MESSAGES else _flat(row, FLAT_FORMATS[name])
    _check_turns(messages)
    return Example(row=number, messages=messages, split=_split(row.get("split")))


def unused_fields(row: Mapping[str, Any], format: str) -> list[str]:
    """Return the fields of an accepted row that were not read, those of its messages as "messages[].name"."""
    unused = list(row.keys() - (_MESSAGES_FIELDS if format == MESSAGES else FLAT_FORMATS[format].fields))
    if format == MESSAGES:
        inner = {field for message in row[MESSAGES] for field in message} - {"role", "content"}
        unused += (f"messages[].{field}" for field in inner)
    return unused


def _flat(row: Mapping[str, Any], flat: _FlatFormat) -> tuple[Message, ...]:
    prompt = _text(row[flat.prompt], flat.prompt)
    if flat.addition is not None and row.get(flat.addition) not in (None, ""):
        prompt += "\n\n" + _text(row[flat.addition], flat.addition)
    answer = _text(row[flat.answer], flat.answer)
    for text, field in ((prompt, flat.prompt), (answer, flat.answer)):
        if not text.strip():
            raise InvalidDataset(f"{field!r} is empty")
    turns = (Message("user", prompt), Message("assistant", answer))
    if row.get("system") in (None, ""):
        return turns
    return Message("system", _text(row["system"], "system")), *turns


def _listed(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidDataset(f"'messages' must be a list of at least two messages, not {_kind(value)}")
    messages = []
    for position, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise InvalidDataset(f"message {position} must be an object, not {_kind(message)}")
        for field in ("role", "content"):
            if field not in message:
                raise InvalidDataset(f"message {position} has no {field!r}, only {_names(message)}")
        if message["role"] not in ROLES:
            raise InvalidDataset(
                f"message {position} has the role {_shown(message['role'])}; known are {', '.join(ROLES)}"
            )
        messages.append(Message(message["role"], _text(message["content"], f"content of message {position}")))
    return tuple(messages)


def _check_turns(messages: tuple[Message, ...]) -> None:
    """Hold to: system at most once and first, then user and assistant in turn, the assistant last, nothing empty."""
    turns = messages[1:] if messages[0].role == "system" else messages
    for position, message in enumerate(turns, start=len(messages) - len(turns) + 1):
        expected = "user" if (position - len(messages) + len(turns)) % 2 else "assistant"
        if message.role != expected:
            raise InvalidDataset(f"message {position} is the {message.role}'s where the {expected}'s turn is")
        if not message.content.strip():
            raise InvalidDataset(f"message {position}, the {message.role}'s, is empty")
    if not turns or turns[-1].role != "assistant":
        raise InvalidDataset("the last message must be the assistant's, the answer to learn")


def _split(value: object) -> Split | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in _SPLITS:
        return _SPLITS[value.strip().lower()]
    raise InvalidDataset(f"'split' is {_shown(value)}; it can be 'train' or 'heldout' (or test, validation)")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidDataset(f"{field!r} must be text, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InvalidDataset(f"{field!r} holds half of a surrogate pair, \\u{ord(half):04x}") from error
    return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "an empty list" if value == [] else names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."


def _names(row: Mapping[str, Any]) -> str:
    shown = ", ".join(_shown(name) for name in list(row)[:8])
    return f"{shown}, ..." if len(row) > 8 else shown or "no fields"
