"""XML as a stream of events, in memory that does not grow with it. What declares entities is refused: no document
format needs them, and they are how a small file becomes a large one or reads another. Knows no format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol
from xml.etree.ElementTree import ParseError, XMLParser

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.parsed import MAX_CHARACTERS

_READ_BYTES = 64 << 10
_MAX_DEPTH = 1_000
_MAX_TEXT = 4 * MAX_CHARACTERS
"""Of one part: figures and white space besides what is read."""
START, END, TEXT = "start", "end", "text"
Event = tuple[str, str, Mapping[str, str]]
"""(START, name, attributes), (END, name, {}) or (TEXT, text, {}). Names without their namespaces, but for attributes
that refer to other parts: "r:id"."""
_NONE: Mapping[str, str] = {}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def xml_events(file: Readable, name: str) -> Iterator[Event]:
    """Yield what the file holds, in order. ``name``: for messages.

    Raises: UnreadableDocument if it is no XML, declares a document type, or is nested too deeply.
    """
    target = _Events()
    parser = XMLParser(target=target)  # noqa: S314
    try:
        while chunk := file.read(_READ_BYTES):
            parser.feed(chunk)
            yield from target.taken()
        parser.close()
    except ParseError as error:
        raise UnreadableDocument(f"the part {name!r} of the document is no valid XML: {error}") from error
    yield from target.taken()


class _Events:
    """The parser's target."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._depth = 0
        self._characters = 0

    def taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableDocument(f"the document's XML is nested more than {_MAX_DEPTH:,} levels deep")
        named = {_attribute(name): value for name, value in attributes.items()} if attributes else _NONE
        self._events.append((START, _local(tag), named))

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._events.append((END, _local(tag), _NONE))

    def data(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > _MAX_TEXT:
            raise UnreadableDocument(f"a part of the document holds more than {_MAX_TEXT:,} characters; split it")
        self._events.append((TEXT, text, _NONE))

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UnreadableDocument("the document's XML declares a document type, which Office files never do; refused")

    def close(self) -> None:
        return None


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _attribute(name: str) -> str:
    namespace, _, local = name.rpartition("}")
    return f"r:{local}" if namespace.endswith("/relationships") else local
