"""Every reason for which a row of an upload cannot be used, with what would help: a stable code, the values that
matter, and both sentences in English. The catalogues have the same sentences under ``problem.<code>`` and
``remedy.<code>``. Knows nothing of how rows are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from terakoya.exceptions import InvalidDataset

Value = str | int

PROBLEMS: Mapping[str, tuple[str, str]] = {
    "not_json": (
        "not JSON: %(detail)s at character %(position)s",
        "write one JSON object on the line, with double quotes; a JSON library does it without mistakes",
    ),
    "not_object": (
        "not a JSON object but of the JSON type %(found)s",
        'write one JSON object on the line, such as {"prompt": "...", "completion": "..."}',
    ),
    "too_deep": ("nested too deeply", "a row is flat, or has a list of messages; remove what is nested"),
    "unreadable": ("not a row: %(detail)s", "remove or shorten this value"),
    "line_too_long": (
        "longer than %(limit)s MiB, the most one row may have",
        "put each row on a line of its own, or cut the row up",
    ),
    "bad_encoding": (
        "not valid %(encoding)s: byte 0x%(byte)s at position %(position)s",
        "save the whole file as UTF-8",
    ),
    "bad_bytes": ("%(field)s holds bytes that are not valid in the file's encoding", "save the whole file as UTF-8"),
    "half_character": (
        "%(field)s holds half of a surrogate pair, %(half)s",
        "write the whole character, or remove it",
    ),
    "nul": ("%(field)s holds a NUL character", "remove the NUL character; no text has one"),
    "bad_quoting": (
        "a quoted field is followed by other text",
        'quote the whole field, and write each quote inside it twice: ""',
    ),
    "bad_line_end": (
        "a line ends with a carriage return alone, as no system of today writes it",
        "save the file with line ends LF or CRLF",
    ),
    "open_quote": (
        "a quote is opened here and not closed; %(lines)s lines were passed over",
        'close the quote, or write it twice inside a quoted field: ""',
    ),
    "wrong_columns": (
        "%(found)s columns where the header has %(expected)s",
        "quote fields that hold the separator or a line break",
    ),
    "no_known_fields": (
        "it has none of the known fields, only %(fields)s",
        "say which column is what, such as prompt=%(example)s, or rename the fields",
    ),
    "missing_field": (
        "it has %(present)s but no %(missing)s",
        "add the field, or say which column is what",
    ),
    "missing_column": (
        "it lacks the column %(column)s of the mapping",
        "add the column, or correct the mapping",
    ),
    "not_text": ("%(field)s must be text, not of the type %(found)s", "write it as text in quotes"),
    "empty": ("%(field)s is empty", "fill it in, or remove the row"),
    "bad_split": (
        "the split is %(found)s",
        "write train or heldout (or test, validation), or leave it out",
    ),
    "not_messages": (
        "%(field)s must be a list of messages, not of the type %(found)s",
        'write a list such as [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]',
    ),
    "not_message": (
        "message %(position)s must be an object, not of the type %(found)s",
        'write {"role": "...", "content": "..."}',
    ),
    "message_lacks": (
        "message %(position)s has no %(missing)s, only %(fields)s",
        "each message has a role (or from) and a content (or value)",
    ),
    "unknown_role": (
        "message %(position)s has the role %(found)s",
        "known roles are system, user, assistant and tool",
    ),
    "tool_calls": (
        "message %(position)s has tool_calls, which are not read",
        "write the call into the content, as the model should write it",
    ),
    "not_only_text": (
        "message %(position)s has parts that are not text",
        "images and sounds cannot be learned from; keep the text parts",
    ),
    "wrong_turn": (
        "message %(position)s is of the role %(found)s where %(expected)s is expected",
        "a system message may come first; then user and assistant take turns, a tool's result after the assistant",
    ),
    "empty_message": ("message %(position)s, of the role %(role)s, is empty", "fill it in, or remove the row"),
    "no_answer": (
        "the last message must be the assistant's, the answer to learn",
        "remove what follows the last answer, or add the answer",
    ),
    "different_prompts": (
        "chosen and rejected do not follow the same messages",
        "both may differ in their last message only; put what they share into prompt",
    ),
    "no_prompt": ("it has no prompt that chosen and rejected would answer", "add a prompt, or write both as messages"),
    "same_answers": ("chosen and rejected are the same", "nothing can be learned from the pair; remove the row"),
    "other_kind": (
        "it is %(found)s, but the first row of the file (%(first)s) is %(expected)s",
        "put rows of each kind into a file of their own",
    ),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row cannot be used."""

    code: str
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        return PROBLEMS[self.code][0] % self.values

    @property
    def remedy(self) -> str:
        return PROBLEMS[self.code][1] % self.values


class BadRow(InvalidDataset):
    """A row that cannot be used."""

    def __init__(self, code: str, **values: Value) -> None:
        self.problem = Problem(code, values)
        super().__init__(self.problem.reason)


def type_name(value: object) -> str:
    """Return what JSON calls the type of a value, or Python's name for what JSON has not."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """Return a value as it is shown in a reason: quoted, and not long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."


def shown_names(names: Mapping[str, object]) -> str:
    listed = ", ".join(shown(name) for name in list(names)[:8])
    return f"{listed}, ..." if len(names) > 8 else listed or "no fields"
