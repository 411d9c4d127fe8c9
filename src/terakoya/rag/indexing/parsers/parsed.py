"""What a parser makes of a file: plain text, and where in it headings, lists, tables and pages are. Offsets are code
points of that text. Also how parsers write it down, so that offsets are right by construction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from terakoya.exceptions import UnreadableDocument

MAX_CHARACTERS = 10_000_000
"""Of one document: some 5,000 pages."""
MAX_TITLE = 300
_SURROGATES = re.compile("[\ud800-\udfff]")
_CJK = re.compile(
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U0001b000-\U0001b2ff\U00020000-\U0003ffff]"
)


class BlockKind(StrEnum):
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    """One item of it, its mark included."""
    TABLE = "table"
    """A row a line, cells separated by " | "."""
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    kind: BlockKind
    start: int
    end: int
    level: int = 0
    """Of a heading, from 1; of a list item, how deep, from 0."""
    label: str = ""
    """Of a table: caption, header and units on one line. Rows in a passage without the header are found under it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    text: str
    title: str | None = None
    blocks: tuple[Block, ...] = ()
    """In order, without overlap; together they hold all but white space."""
    page_starts: tuple[int, ...] | None = None
    """Where each page begins; None where the format has no pages."""
    notices: tuple[str, ...] = ()
    """What was converted or left out, in words."""


class Parser(Protocol):
    def __call__(self, path: Path) -> Parsed:
        """Raises: UnreadableDocument with the reason."""
        ...


class TextWriter:
    """Writes text block by block: list items and rows on lines of their own, everything else a blank line apart."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self.length = 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks)

    def add(self, kind: BlockKind, text: str, *, level: int = 0, label: str = "") -> None:
        """Append a block without the white space around it; one of nothing but white space is left out.

        Raises: UnreadableDocument beyond MAX_CHARACTERS.
        """
        text = text.rstrip() if kind in (BlockKind.CODE, BlockKind.LIST) else text.strip()
        text = text.lstrip("\n")
        if not text.strip():
            return
        if self._blocks:
            both_items = kind is BlockKind.LIST and self._blocks[-1].kind is BlockKind.LIST
            self._write("\n" if both_items else "\n\n")
        start = self.length
        self._write(text)
        self._blocks.append(Block(kind, start, self.length, level, label))

    def extend_last(self, text: str) -> None:
        """Append to the last block, which goes on."""
        last = self._blocks.pop()
        self._write(text)
        self._blocks.append(replace(last, end=self.length))

    def text(self) -> str:
        """Code points that no encoding can hold (lone surrogates) become U+FFFD."""
        return _SURROGATES.sub("\ufffd", "".join(self._pieces))

    def _write(self, text: str) -> None:
        self._pieces.append(text)
        self.length += len(text)
        check_length(self.length)


def check_length(characters: int) -> None:
    """Raises: UnreadableDocument beyond MAX_CHARACTERS."""
    if characters > MAX_CHARACTERS:
        raise UnreadableDocument(
            f"the document has more than {MAX_CHARACTERS:,} characters of text; split it into several"
        )


def joint(before: str, after: str) -> str:
    """Return what stands between two lines that were one: nothing beside Japanese, else a space."""
    return "" if _CJK.match(before[-1:]) or _CJK.match(after[:1]) else " "


def clean_title(title: str | None) -> str | None:
    """Return it on one line and not too long; None if nothing is left."""
    words = " ".join(_SURROGATES.sub("\ufffd", title or "").replace("\0", "").split())
    return words[:MAX_TITLE].rstrip() or None


def check_not_empty(parsed: Parsed) -> Parsed:
    """Raises: UnreadableDocument if it holds no letter, digit or sign of any script."""
    if not any(character.isalnum() for character in parsed.text):
        raise UnreadableDocument("the document holds no text")
    return parsed
