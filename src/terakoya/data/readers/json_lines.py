"""JSONL: one JSON object a line."""

from __future__ import annotations

from terakoya.data.encodings import read_lines
from terakoya.data.formats import parse_line
from terakoya.data.problems import BadRow, Problem
from terakoya.data.readers.rows import Rows
from terakoya.data.sources import Source


def read_json_lines(source: Source, encoding: str) -> Rows:
    for number, line in read_lines(source, encoding):
        if isinstance(line, Problem):
            yield number, line
        elif line.strip():
            try:
                yield number, parse_line(line)
            except BadRow as error:
                yield number, error.problem
