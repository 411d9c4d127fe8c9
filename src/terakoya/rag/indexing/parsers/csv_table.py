"""CSV and TSV files to one table: the separator is found out, the header guessed, every row a line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.decoding import decode_file
from terakoya.rag.indexing.parsers.parsed import MAX_CHARACTERS, Parsed, TextWriter, check_length, check_not_empty
from terakoya.rag.indexing.parsers.tables import write_table

_SEPARATORS = ",\t;|"
_SAMPLE_CHARACTERS = 64 << 10
_SAMPLE_ROWS = 50


def parse(path: Path) -> Parsed:
    decoded = decode_file(path)
    check_length(len(decoded.text))
    out = TextWriter()
    write_table(out, _rows(decoded.text))
    return check_not_empty(Parsed(out.text(), None, out.blocks, notices=decoded.notices))


def _rows(text: str) -> list[list[str]]:
    csv.field_size_limit(MAX_CHARACTERS)
    try:
        rows = list(_read(text, separator_of(text)))
    except csv.Error as error:
        raise UnreadableDocument(f"the file is no CSV that can be read: {error}") from error
    while rows and not any(map(str.strip, rows[-1])):
        rows.pop()
    return rows


def _read(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=False)


def separator_of(text: str) -> str:
    """Return what separates the cells: what gives most rows the same number of them, more than one; else a comma."""
    sample = text[:_SAMPLE_CHARACTERS]
    best, best_score = ",", 0.0
    for separator in _SEPARATORS:
        try:
            widths = [len(row) for row, _ in zip(_read(sample, separator), range(_SAMPLE_ROWS), strict=False) if row]
        except csv.Error:
            continue
        if not widths:
            continue
        width, times = Counter(widths).most_common(1)[0]
        score = times / len(widths) if width > 1 else 0.0
        if score > best_score:
            best, best_score = separator, score
    return best
