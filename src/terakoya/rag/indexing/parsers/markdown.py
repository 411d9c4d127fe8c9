"""Markdown to readable text: marks are removed, what they meant (headings, items, tables, code) is kept as blocks.
HTML inside it is read by the rules of the HTML parser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from terakoya.rag.indexing.parsers.decoding import decode_file
from terakoya.rag.indexing.parsers.html import write_html
from terakoya.rag.indexing.parsers.parsed import BlockKind, Parsed, TextWriter, check_not_empty, clean_title, joint
from terakoya.rag.indexing.parsers.plain import parse_text
from terakoya.rag.indexing.parsers.tables import write_table

_MAX_NESTING = 60
"""Of quotes and lists, two levels a list; markdown-it recurses, and leaves out what is deeper."""
_FRONT_MATTER = re.compile(r"---[ \t]*\n((?:[^\n]*\n){0,200}?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.M)
_SILENT_TAG = re.compile(r"<(/?)(script|style|template|noscript|iframe)\b", re.I)


def parse(path: Path) -> Parsed:
    decoded = decode_file(path)
    text, front, notices = decoded.text, None, list(decoded.notices)
    if (match := _FRONT_MATTER.match(text)) and ":" in match.group(1):
        front = match.group(1)
        text = text[match.end() :]
        notices.append("the front matter was left out")
    tokens = _tokens(text)
    if _is_too_deep(tokens):
        notices.append(f"nested more than {_MAX_NESTING // 2} levels deep: read as plain text")
        return check_not_empty(parse_text(text, tuple(notices)))
    writer = _MarkdownWriter()
    writer.write(tokens)
    title = _front_title(front) or writer.title
    return check_not_empty(Parsed(writer.out.text(), title, writer.out.blocks, notices=tuple(notices)))


def _tokens(text: str) -> list[Token]:
    markdown = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING, "html": True}).enable(["table", "strikethrough"])
    return markdown.parse(text)


def _is_too_deep(tokens: Sequence[Token]) -> bool:
    return any(
        token.nesting == 1 and token.type in ("blockquote_open", "list_item_open") and token.level + 1 >= _MAX_NESTING
        for token in tokens
    )


def _front_title(front: str | None) -> str | None:
    found = _FRONT_TITLE.search(front) if front else None
    return clean_title(found.group(1).strip().strip("\"'")) if found else None


class _MarkdownWriter:
    """Tokens, in order, to blocks."""

    def __init__(self) -> None:
        self.out = TextWriter()
        self.title: str | None = None
        self._lists: list[int | None] = []
        """Of each list that is open: the next number, None if it has none."""
        self._mark: str | None = None
        """Of the item that has just begun, until its first text is written."""
        self._rows: list[list[str]] = []
        self._heading = 0

    def write(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            match token.type:
                case "heading_open":
                    self._heading = int(token.tag[1])
                case "heading_close":
                    self._heading = 0
                case "inline":
                    self._inline(token)
                case "fence" | "code_block":
                    self._block(BlockKind.CODE, token.content)
                case "html_block":
                    write_html(token.content, self.out)
                case "bullet_list_open":
                    self._lists.append(None)
                case "ordered_list_open":
                    self._lists.append(int(token.attrGet("start") or 1))
                case "bullet_list_close" | "ordered_list_close":
                    self._lists.pop()
                    self._mark = None
                case "list_item_open":
                    self._mark = self._next_mark()
                case "table_open":
                    self._rows = []
                case "tr_open":
                    self._rows.append([])
                case "table_close":
                    write_table(self.out, self._rows, headers=1)
                    self._rows = []

    def _inline(self, token: Token) -> None:
        text = inline_text(token.children or [])
        if self._rows:
            self._rows[-1].append(" ".join(text.split()))
        elif self._heading:
            heading = " ".join(text.split())
            if self.title is None and self._heading == 1:
                self.title = clean_title(heading)
            self.out.add(BlockKind.HEADING, heading, level=self._heading)
            self._mark = None
        else:
            self._block(BlockKind.PARAGRAPH, text)

    def _block(self, kind: BlockKind, text: str) -> None:
        if self._mark is None:
            self.out.add(kind, text)
            return
        mark, self._mark = self._mark, None
        depth = len(self._lists) - 1
        self.out.add(BlockKind.LIST, f"{'  ' * depth}{mark} {text.strip()}", level=depth)

    def _next_mark(self) -> str:
        number = self._lists[-1]
        if number is None:
            return "-"
        self._lists[-1] = number + 1
        return f"{number}."


def inline_text(tokens: Sequence[Token]) -> str:
    """Return what a reader sees of inline tokens; of an image, its description."""
    text = ""
    pieces: list[str] = []
    silent: str | None = None
    for position, token in enumerate(tokens):
        if token.type == "html_inline":
            silent = _still_silent(silent, token.content)
            text = "\n" if token.content.lower().startswith("<br") else ""
        elif silent is not None:
            continue
        elif token.type in ("text", "code_inline", "text_special"):
            text = token.content
        elif token.type == "image":
            text = inline_text(token.children or [])
        elif token.type == "hardbreak":
            text = "\n"
        elif token.type == "softbreak":
            text = joint(pieces[-1] if pieces else "", _next_text(tokens, position))
        else:
            continue
        if text:
            pieces.append(text)
    return "".join(pieces)


def _next_text(tokens: Sequence[Token], position: int) -> str:
    return next((token.content for token in tokens[position + 1 : position + 4] if token.content), "")


def _still_silent(silent: str | None, tag: str) -> str | None:
    """Return the element whose content is not shown, if any, after this tag."""
    found = _SILENT_TAG.match(tag)
    if found is None:
        return silent
    is_closing, name = bool(found.group(1)), found.group(2).lower()
    if silent is None:
        return None if is_closing else name
    return None if is_closing and name == silent else silent
