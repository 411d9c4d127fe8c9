"""CSV and TSV: a header with the names of the columns, then one record a row, quoted as RFC 4180 has it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from terakoya.data.encodings import LINE_LIMIT_BYTES, read_text
from terakoya.data.problems import Problem, shown
from terakoya.data.readers.rows import Rows
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

CSV_DELIMITERS = (",", ";", "\t")


def read_delimited(source: Source, encoding: str, *, delimiters: Sequence[str] = CSV_DELIMITERS) -> Rows:
    """Yield each record by the names in the header; its number is that of the line it begins on.

    Raises: InvalidDataset for a header that does not name the columns, or a line that is longer than a row may be.
    """
    csv.field_size_limit(LINE_LIMIT_BYTES)
    lines = _Lines(read_text(source, encoding))
    delimiter = max(delimiters, key=lines.peek().count)
    records = _records(lines, delimiter)
    names: list[str] | None = None
    for number, record in records:
        if record == []:  # a blank line
            continue
        if names is None:
            names = _checked_names(record)
        elif isinstance(record, Problem):
            yield number, record
        elif len(record) != len(names):
            yield number, Problem("wrong_columns", {"found": len(record), "expected": len(names)})
        else:
            yield number, dict(zip(names, record, strict=True))


def read_tab_separated(source: Source, encoding: str) -> Rows:
    return read_delimited(source, encoding, delimiters=("\t",))


class _Lines:
    """Lines with their ends, counted as they are taken."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self.taken = 0
        self._lines = _split(pieces)
        self._peeked: list[str] = []

    def peek(self) -> str:
        """Return the first line that is not blank, without taking it; "" if there is none."""
        for line in self._lines:
            self._peeked.append(line)
            if line.strip():
                return line
        return ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._peeked.pop(0) if self._peeked else next(self._lines)
        self.taken += 1
        return line


def _split(pieces: Iterator[str]) -> Iterator[str]:
    rest = ""
    number = 1
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield line + "\n"
        number += len(lines)
        if len(rest) > LINE_LIMIT_BYTES:
            raise InvalidDataset(
                f"line {number} is longer than {LINE_LIMIT_BYTES // 2**20} MiB, the most one row may have"
            )
    if rest:
        yield rest


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | Problem]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.taken + 1
        try:
            record: list[str] | Problem = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on with the next line
            record = _problem(str(error), lines.taken - start + 1)
        yield start, record


def _problem(message: str, lines: int) -> Problem:
    if "unexpected end" in message or "field limit" in message:
        return Problem("open_quote", {"lines": lines})
    return Problem("bad_line_end" if "new-line" in message else "bad_quoting")


def _checked_names(record: list[str] | Problem) -> list[str]:
    if isinstance(record, Problem):
        raise InvalidDataset(f"the header of the table cannot be read: {record.reason}")
    names = [name.strip() for name in record]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InvalidDataset(f"the header names the column {shown(twice[0])} twice; give each its own name")
    return names
