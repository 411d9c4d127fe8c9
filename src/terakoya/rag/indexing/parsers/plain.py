"""Plain text: stored as it is; blocks are its paragraphs, list items and short lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from terakoya.rag.indexing.parsers.decoding import decode_file
from terakoya.rag.indexing.parsers.parsed import Block, BlockKind, Parsed, check_length, check_not_empty

_LINE = re.compile(r"[^\n]+")
_ITEM_START = re.compile(
    r"^[ \t\u3000]*(?:[-*+•・◦●○]|\d{1,3}[.)、．）]|[(（]\d{1,3}[)）]|[①-⑳])[ \t\u3000]*(?=\S)", re.M
)


def parse(path: Path) -> Parsed:
    decoded = decode_file(path)
    return check_not_empty(parse_text(decoded.text, decoded.notices))


def parse_text(text: str, notices: tuple[str, ...]) -> Parsed:
    """Raises: UnreadableDocument beyond MAX_CHARACTERS."""
    check_length(len(text))
    blocks = [block for start, end in _paragraphs(text) for block in _blocks(text, start, end)]
    return Parsed(text, blocks=tuple(blocks), notices=notices)


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of lines between blank lines."""
    start = end = 0
    for line in _LINE.finditer(text):
        if line.group().isspace():
            continue
        if line.start() != end + 1 and end > start:
            yield start, end
            start = line.start()
        elif end == start:
            start = line.start()
        end = line.end()
    if end > start:
        yield start, end


def _blocks(text: str, start: int, end: int) -> list[Block]:
    """Return a paragraph as one block, or, where it has items, one for each and one for what stands before."""
    starts = [match.start() for match in _ITEM_START.finditer(text, start, end)]
    if len(starts) < 2:
        return [Block(BlockKind.PARAGRAPH, start, end)]
    lead = [Block(BlockKind.PARAGRAPH, start, starts[0] - 1)] if starts[0] > start else []
    ends = [*(following - 1 for following in starts[1:]), end]
    return lead + [Block(BlockKind.LIST, first, last) for first, last in zip(starts, ends, strict=True)]
