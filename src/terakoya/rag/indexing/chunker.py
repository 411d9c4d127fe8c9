"""Cuts a parsed document into passages of 200 to 400 of the embedder's tokens along its structure: sections first,
then blocks, then sentences or rows, and only what is longer than a passage anywhere else. Passages do not overlap and
leave out nothing but white space. Knows nothing of files, models or indexes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from terakoya.rag.indexing.parsers.parsed import Block, BlockKind, Parsed
from terakoya.rag.indexing.token_count import TokenCount
from terakoya.rag.sentences import Span, sentences

_LINE = re.compile(r"[^\n]+")
_SOFT_BREAK = re.compile(r"[\s、，,;；:：)）」』\]】]")
_MAX_HEADING = 200


@dataclass(frozen=True, slots=True)
class Sizes:
    """In tokens of the embedder."""

    small: int = 60
    """A section below this is joined to its neighbour."""
    least: int = 200
    """A passage that has so many may end where a lesser section begins."""
    most: int = 400
    most_characters: int = 10_000
    """What is mostly white space, or unknown to the tokenizer, has few tokens however long it is."""


@dataclass(frozen=True, slots=True)
class Chunk:
    start: int
    end: int
    heading: tuple[str, ...] = ()
    """Path of the headings above its first character, then the label of the table that goes on there; those inside it
    are part of its text."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is not cut any further."""

    start: int
    end: int
    tokens: int
    heading_level: int = 0
    """0 if it is no heading."""
    path: tuple[str, ...] = ()
    goes_on: bool = False
    """Whether it is the continuation of a block that was too long."""


def chunk(parsed: Parsed, count: TokenCount, sizes: Sizes | None = None) -> tuple[Chunk, ...]:
    """Return the passages of ``parsed.text`` in order. ``count``: of that text."""
    sizes = sizes or Sizes()
    pieces = list(_pieces(parsed, count, sizes))
    return tuple(Chunk(group[0].start, group[-1].end, group[0].path) for group in _groups(pieces, count, sizes))


# -- pieces ------------------------------------------------------------------------------------------------------


def _pieces(parsed: Parsed, count: TokenCount, sizes: Sizes) -> Iterator[_Piece]:
    path: list[tuple[int, str]] = []
    heading_tokens = 0
    for block in _all_blocks(parsed):
        level = block.level if block.kind is BlockKind.HEADING else 0
        if level:
            while path and path[-1][0] >= level:
                path.pop()
        above = tuple(heading for _, heading in path)
        most = sizes.most - min(heading_tokens, sizes.most // 2)  # room for the headings it is joined to
        goes_on = False
        for start, end in _cut(parsed.text, block, count, most, sizes.most_characters):
            path_of_piece = (*above, block.label) if goes_on and block.label else above
            yield _Piece(start, end, count.between(start, end), level, path_of_piece, goes_on)
            goes_on = True
        if level:
            path.append((level, " ".join(parsed.text[block.start : block.end].split())[:_MAX_HEADING]))
        heading_tokens = heading_tokens + count.between(block.start, block.end) if level else 0


def _all_blocks(parsed: Parsed) -> Iterator[Block]:
    """Yield the blocks without the white space around them, and as paragraphs whatever lies between."""
    position = 0
    for block in (*parsed.blocks, Block(BlockKind.PARAGRAPH, len(parsed.text), len(parsed.text))):
        for kind, start, end in (
            (BlockKind.PARAGRAPH, position, block.start),
            (block.kind, max(block.start, position), block.end),
        ):
            span = _stripped(parsed.text, start, end)
            if span is not None:
                yield Block(kind, *span, level=block.level, label=block.label)
        position = max(position, block.end)


def _cut(text: str, block: Block, count: TokenCount, most: int, characters: int) -> Iterator[Span]:
    """Yield the block if it fits a passage, else its sentences or lines, else pieces of these."""
    if count.between(block.start, block.end) <= most and block.end - block.start <= characters:
        yield block.start, block.end
        return
    piece = text[block.start : block.end]
    if block.kind in (BlockKind.TABLE, BlockKind.CODE):
        spans: list[Span] = [match.span() for match in _LINE.finditer(piece)]
    else:
        spans = list(sentences(piece))
    for start, end in spans:
        span = _stripped(text, block.start + start, block.start + end)
        if span is not None:
            yield from _cut_hard(text, *span, count, most, characters)


def _cut_hard(text: str, start: int, end: int, count: TokenCount, most: int, characters: int) -> Iterator[Span]:
    """Yield spans of at most so many tokens and characters, ended at a space or comma where one is near."""
    while count.between(start, end) > most or end - start > characters:
        cut = min(count.end_after(start, most, end), start + characters)
        nearest = max(start + 1, cut - (cut - start) // 4)
        soft = next((at for at in range(cut, nearest, -1) if _SOFT_BREAK.match(text, at - 1)), cut)
        span = _stripped(text, start, soft)
        if span is not None:
            yield span
        start = soft
    span = _stripped(text, start, end)
    if span is not None:
        yield span


def _stripped(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return None if left == len(piece) else (start + left, start + len(piece.rstrip()))


# -- passages ------------------------------------------------------------------------------------------------------


def _groups(pieces: list[_Piece], count: TokenCount, sizes: Sizes) -> Iterator[list[_Piece]]:
    top = _section_level(pieces)
    rest = _tokens_to_next_heading(pieces)
    group: list[_Piece] = []
    for index, piece in enumerate(pieces):
        if group and _begins_anew(group, piece, rest[index], top, count, sizes):
            carried = _trailing_headings(group)
            yield group
            group = carried
            if group and _is_too_long(group, piece, count, sizes):
                yield group
                group = []
        group.append(piece)
    if group:
        yield group


def _begins_anew(group: list[_Piece], piece: _Piece, rest: int, top: int, count: TokenCount, sizes: Sizes) -> bool:
    """Whether ``piece`` begins a passage of its own instead of going on with ``group``. ``rest``: tokens from it to
    the next heading.
    """
    tokens = count.between(group[0].start, group[-1].end)
    if tokens + piece.tokens > sizes.most or piece.end - group[0].start > sizes.most_characters:
        return True
    if group[-1].heading_level:
        return False  # a heading stays with what follows it
    if not piece.heading_level:
        # What needs several passages is shared out evenly, so that no scrap is left over.
        passages = -(-(tokens + rest) // sizes.most)
        return passages > 1 and tokens + piece.tokens / 2 > (tokens + rest) / passages
    if piece.heading_level <= top:
        is_rest_of_section = not group[0].heading_level and bool(group[0].path)
        return tokens >= sizes.small or is_rest_of_section
    return tokens >= sizes.least or (tokens >= sizes.small and tokens + rest > sizes.most)


def _is_too_long(group: list[_Piece], piece: _Piece, count: TokenCount, sizes: Sizes) -> bool:
    start, end = group[0].start, piece.end
    return count.between(start, end) > sizes.most or end - start > sizes.most_characters


def _trailing_headings(group: list[_Piece]) -> list[_Piece]:
    """Take the headings off the group's end, unless it is nothing else: they belong to what follows."""
    keep = len(group)
    while keep > 1 and group[keep - 1].heading_level:
        keep -= 1
    if keep == 1 and group[0].heading_level:
        return []
    carried = group[keep:]
    del group[keep:]
    return carried


def _section_level(pieces: list[_Piece]) -> int:
    """Return the level of the document's main sections: the highest that occurs more than once."""
    levels = Counter(piece.heading_level for piece in pieces if piece.heading_level and not piece.goes_on)
    return min((level for level, times in levels.items() if times > 1), default=min(levels, default=0))


def _tokens_to_next_heading(pieces: list[_Piece]) -> list[int]:
    """Return for each piece how many tokens there are from it to the next heading."""
    totals = [0] * (len(pieces) + 1)
    for index in range(len(pieces) - 1, -1, -1):
        follows_heading = index + 1 < len(pieces) and pieces[index + 1].heading_level > 0
        totals[index] = pieces[index].tokens + (0 if follows_heading else totals[index + 1])
    return totals
