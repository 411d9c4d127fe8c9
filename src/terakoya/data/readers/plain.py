"""Plain text and Markdown: passages of running text, cut at blank lines; at line ends where there are none."""

from __future__ import annotations

from terakoya.data.encodings import read_lines
from terakoya.data.problems import Problem
from terakoya.data.readers.rows import Rows
from terakoya.data.sources import Source

PASSAGE_CHARACTERS = 4000
"""A passage ends at the first blank line after so many characters."""
_LONGEST = 4 * PASSAGE_CHARACTERS
"""Where no blank line comes, it ends at the first line's end after so many."""


def read_plain(source: Source, encoding: str) -> Rows:
    """Yield passages as ``{"text"}``, each numbered by the line it begins on."""
    lines: list[str] = []
    start = size = 0
    for number, line in read_lines(source, encoding):
        if isinstance(line, Problem):
            yield number, line
            continue
        line = line.rstrip("\r")
        if not line.strip() and size >= PASSAGE_CHARACTERS:
            yield start, {"text": "\n".join(lines).rstrip()}
            lines, size = [], 0
        elif lines or line.strip():
            if not lines:
                start = number
            lines.append(line)
            size += len(line) + 1
            if size >= _LONGEST:
                yield start, {"text": "\n".join(lines).rstrip()}
                lines, size = [], 0
    if lines:
        yield start, {"text": "\n".join(lines).rstrip()}
