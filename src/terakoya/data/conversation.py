"""Turns lists of messages as other tools write them (OpenAI's role and content, ShareGPT's from and value) into
conversations, and holds conversations to their rules. Pure; knows nothing of rows or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from terakoya.data.problems import BadRow, shown, shown_names, type_name
from terakoya.domain.datasets import Message

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}
"""What other tools call a speaker -> what we call it."""
READ_FIELDS = frozenset({"role", "from", "content", "value"})
_FOLLOWERS: Mapping[str, tuple[str, ...]] = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def read_text(value: object, field: str) -> str:
    """Return ``value`` if it is text that can be stored and tokenised. Raises: BadRow."""
    if not isinstance(value, str):
        raise BadRow("not_text", field=repr(field), found=type_name(value))
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        if 0xDC80 <= half <= 0xDCFF:  # where decoding left a byte as it was
            raise BadRow("bad_bytes", field=repr(field)) from error
        raise BadRow("half_character", field=repr(field), half=f"\\u{half:04x}") from error
    if "\0" in value:
        raise BadRow("nul", field=repr(field))
    return value


def read_filled(value: object, field: str) -> str:
    """Return text that is more than white space. Raises: BadRow."""
    text = read_text(value, field)
    if not text.strip():
        raise BadRow("empty", field=repr(field))
    return text


def read_messages(value: object, field: str) -> tuple[Message, ...]:
    """Return a list of messages. Raises: BadRow naming the message."""
    if not isinstance(value, list) or not value:
        raise BadRow("not_messages", field=repr(field), found="empty array" if value == [] else type_name(value))
    return tuple(_read_message(message, position) for position, message in enumerate(value, start=1))


def check_turns(messages: Sequence[Message]) -> None:
    """Hold to: system at most once and first; then the user, the assistant, and so on, tools between two messages
    of the assistant; the assistant last; nothing empty. Raises: BadRow.
    """
    before = ""
    for position, message in enumerate(messages, start=1):
        if message.role == "system" and position == 1:
            continue
        expected = _FOLLOWERS[before]
        if message.role not in expected:
            raise BadRow("wrong_turn", position=position, found=message.role, expected=" or ".join(expected))
        if not message.content.strip():
            raise BadRow("empty_message", position=position, role=message.role)
        before = message.role
    if before != "assistant":
        raise BadRow("no_answer")


def _read_message(message: object, position: int) -> Message:
    if not isinstance(message, dict):
        raise BadRow("not_message", position=position, found=type_name(message))
    role = _field_of(message, ("role", "from"), position)
    content = _field_of(message, ("content", "value"), position)
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow("unknown_role", position=position, found=shown(role))
    if message.get("tool_calls") or message.get("function_call"):
        raise BadRow("tool_calls", position=position)
    if isinstance(content, list) and content:
        content = _joined_parts(content, position)
    return Message(ROLES[role], read_text(content, f"content of message {position}"))


def _field_of(message: Mapping[str, Any], names: tuple[str, ...], position: int) -> object:
    for name in names:
        if name in message:
            return message[name]
    raise BadRow("message_lacks", position=position, missing=repr(names[0]), fields=shown_names(message))


def _joined_parts(parts: Sequence[object], position: int) -> str:
    """Return the text of OpenAI's content parts."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadRow("not_only_text", position=position)
        texts.append(part["text"])
    return "".join(texts)
