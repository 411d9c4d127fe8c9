"""The stored form of a data set: UTF-8 JSONL, one row a line, as checked at import: ``{"row", "messages", "split"?}``,
with ``"rejected"`` for a preference, or with ``"text"`` in place of messages. Knows nothing of uploads or tokens.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from terakoya.domain.datasets import Example, Message, Split
from terakoya.exceptions import InvalidDataset

_quoted = json.encoder.encode_basestring
"""Text as a JSON string that keeps its letters."""


def to_record(example: Example) -> dict[str, Any]:
    """Return the example as it is stored and shown."""
    record = {"row": example.row, **_content(example)}
    return record if example.split is None else record | {"split": str(example.split)}


def to_line(example: Example) -> bytes:
    return stored_row(example)[0]


def stored_row(example: Example) -> tuple[bytes, bytes]:
    """Return the line as it is stored, and 8 bytes that identify what it holds, whatever its number and split."""
    content = _content_text(example).encode()
    split = b"" if example.split is None else f',"split":"{example.split}"'.encode()
    key = hashlib.blake2b(content, digest_size=8).digest()
    return b'{"row":%d,%b%b}\n' % (example.row, content, split), key


def read_examples(rows_path: Path) -> Iterator[Example]:
    """Yield the stored examples in order. Raises: InvalidDataset if the file is not what import wrote."""
    with rows_path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield read_line(line, number, rows_path.name)


def read_line(line: bytes, number: int, file_name: str) -> Example:
    """Return the example of one stored line. Raises: InvalidDataset, by the line's number, if it is damaged."""
    try:
        return _from_record(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(
            f"line {number} of the stored rows {file_name!r} is damaged ({error}); import the data again"
        ) from error


def answers(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield one example an answer: a conversation with several is cut after each of them, in order."""
    for example in examples:
        for position, message in enumerate(example.messages, start=1):
            if message.role == "assistant":
                yield Example(example.row, example.messages[:position], example.split)


def folded_prompt(example: Example) -> tuple[str, ...]:
    """Return what tells one prompt from another: everything before the last answer, with case, width and spacing
    made equal; of running text the text.
    """
    if example.text is not None:
        return (_fold(example.text),)
    return tuple(f"{message.role}: {_fold(message.content)}" for message in example.messages[:-1])


def prompt_key(example: Example) -> bytes:
    """Return 8 bytes that identify the folded prompt, the same in every process."""
    return hashlib.blake2b("\0".join(folded_prompt(example)).encode(), digest_size=8).digest()


def _fold(text: str) -> str:
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(plain.casefold().split())


def _content(example: Example) -> dict[str, Any]:
    if example.text is not None:
        return {"text": example.text}
    messages = [{"role": message.role, "content": message.content} for message in example.messages]
    return {"messages": messages} if example.rejected is None else {"messages": messages, "rejected": example.rejected}


def _content_text(example: Example) -> str:
    """Return what ``_content`` has as JSON, without its braces: millions of rows pass here."""
    if example.text is not None:
        return f'"text":{_quoted(example.text)}'
    messages = ",".join(f'{{"role":"{each.role}","content":{_quoted(each.content)}}}' for each in example.messages)
    rejected = "" if example.rejected is None else f',"rejected":{_quoted(example.rejected)}'
    return f'"messages":[{messages}]{rejected}'


def _from_record(record: dict[str, Any]) -> Example:
    row = record["row"]
    split = None if record.get("split") is None else Split(record["split"])
    if "text" in record:
        return Example(row, (), split, text=record["text"])
    messages = tuple(Message(message["role"], message["content"]) for message in record["messages"])
    return Example(row, messages, split, record.get("rejected"))
