"""JSON: one array of objects, or objects one after another over several lines, decoded value by value: never more
than one value and one piece of the file is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from terakoya.data.encodings import LINE_LIMIT_BYTES, read_text
from terakoya.data.formats import checked_object
from terakoya.data.problems import BadRow, Problem
from terakoya.data.readers.rows import Rows
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def read_json_values(source: Source, encoding: str) -> Rows:
    """Yield each value with its position from 1.

    Raises: InvalidDataset where the text is not JSON, after which no value can be told from another.
    """
    values = _Values(read_text(source, encoding))
    for position, value in enumerate(values, start=1):
        if isinstance(value, Problem):
            yield position, value
            continue
        try:
            yield position, checked_object(value)
        except BadRow as error:
            yield position, error.problem


class _Values:
    """A window on the text that moves on with every value."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._at = 0
        self._lines = 0
        """Newlines in text that is gone already."""

    def __iter__(self) -> Iterator[object]:
        is_array = self._next() == "["
        if is_array:
            self._at += 1
        is_first = True
        while True:
            character = self._next()
            if character == "" and is_array:
                raise self._broken("the array is not closed: the file is cut off")
            if character == "" or (character == "]" and is_array):
                break
            if is_array and not is_first:
                if character != ",":
                    raise self._broken("a comma is missing between two values")
                self._at += 1
                if self._next() == "]":
                    raise self._broken("a comma stands before the closing bracket")
            yield self._value()
            is_first = False
        if is_array:
            self._at += 1
            if self._next():
                raise self._broken("text follows the closing bracket")

    def _next(self) -> str:
        """Return the next character that is no white space without taking it, "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Forget what was taken and read on. Returns False at the end."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._lines += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + piece
        self._at = 0
        return True

    def _value(self) -> object:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Wrong, or not whole yet: more text tells, up to what one row may have.
                if len(self._text) - self._at <= LINE_LIMIT_BYTES and self._more():
                    continue
                at = error.pos
                line = self._line(at)
                if len(self._text) - self._at > LINE_LIMIT_BYTES and at - self._at > LINE_LIMIT_BYTES // 2:
                    raise InvalidDataset(
                        f"the value that begins on line {self._line(self._at)} is longer than "
                        f"{LINE_LIMIT_BYTES // 2**20} MiB, the most one row may have"
                    ) from error
                raise InvalidDataset(f"the file is not JSON: {error.msg} on line {line}; correct it there") from error
            except RecursionError as error:
                raise InvalidDataset(
                    f"the value that begins on line {self._line(self._at)} is nested too deeply"
                ) from error
            except ValueError as error:
                raise InvalidDataset(
                    f"the value that begins on line {self._line(self._at)} cannot be read: {str(error)[:200]}"
                ) from error
            if end == len(self._text) and self._more():
                continue  # a number may go on in the next piece
            self._at = end
            return value

    def _line(self, position: int) -> int:
        return self._lines + self._text.count("\n", 0, position) + 1

    def _broken(self, reason: str) -> InvalidDataset:
        return InvalidDataset(f"the file is not a JSON array: {reason} on line {self._line(self._at)}")
