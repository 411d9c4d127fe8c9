"""Word documents to text: headings and lists by style and numbering, tables by row, footnotes where they are referred
to. What was deleted or hidden, fields, comments, the table of contents, page headers and footers are left out; macros
are never opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from terakoya.rag.indexing.parsers.docx_styles import Numbering, Resolved, read_numbering, read_styles
from terakoya.rag.indexing.parsers.ooxml import Package, Skipping, is_on
from terakoya.rag.indexing.parsers.parsed import BlockKind, Parsed, TextWriter, check_not_empty, clean_title
from terakoya.rag.indexing.parsers.tables import write_table
from terakoya.rag.indexing.parsers.xml_events import START, TEXT, Event

_LEFT_OUT = frozenset(
    (
        *("Fallback", "del", "moveFrom", "instrText", "delText", "delInstrText", "rt", "pict", "object"),
        *("pPrChange", "rPrChange", "tblPrChange", "trPrChange", "tcPrChange", "sectPrChange", "tblGridChange"),
    )
)
_MAX_HEADING = 300
_MAX_SPAN = 64


def parse(path: Path) -> Parsed:
    with Package(path) as package:
        document = package.main_part("word/document.xml")
        reader = _Reader(read_styles(package, document), read_numbering(package, document), _notes(package, document))
        reader.read(package.events(document))
        notices = reader.notices()
        if any(name in package for name in ("word/vbaProject.bin",)):
            notices.append("macros were left out")
        title = package.title() or reader.title
    return check_not_empty(
        Parsed(reader.out.text(), title, reader.out.blocks, reader.page_starts(), notices=tuple(notices))
    )


@dataclass(slots=True)
class _Paragraph:
    pieces: list[str] = field(default_factory=list)
    style: str | None = None
    numbering: str | None = None
    numbering_level: int | None = None
    outline: int | None = None
    notes: list[str] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    """Where in its text a page begins."""


@dataclass(slots=True)
class _Table:
    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] = field(default_factory=list)
    span: int = 1
    is_continued: bool = False
    """Whether the cell goes on with the one above."""
    headers: int = 0
    is_header: bool = False


class _Reader:
    """One pass over the document."""

    def __init__(self, styles: Mapping[str, Resolved], numbering: Numbering, notes: Mapping[str, str]) -> None:
        self.out = TextWriter()
        self.title: str | None = None
        self._styles = styles
        self._numbering = numbering
        self._notes = notes
        self._paragraphs: list[_Paragraph] = []
        self._tables: list[_Table] = []
        self._pages = [0]
        self._has_pages = False
        self._in_text = False
        self._in_properties = False
        self._is_hidden = False
        self._left_out: dict[str, int] = {}

    def read(self, events: Iterator[Event]) -> None:
        skipping = Skipping(_LEFT_OUT)
        for kind, name, attributes in events:
            if kind == TEXT:
                if self._in_text and not self._is_hidden and self._paragraphs:
                    self._paragraphs[-1].pieces.append(name)
            elif skipping(kind, name):
                continue
            elif kind == START:
                self._start(name, attributes)
            elif (end := _ENDS.get(name)) is not None:
                end(self)

    def notices(self) -> list[str]:
        said = {"contents": "the table of contents was left out", "comment": "comments were left out"}
        return [said[what] for what in said if self._left_out.get(what)]

    def page_starts(self) -> tuple[int, ...] | None:
        """As Word last laid the pages out; None if it never did."""
        return tuple(min(start, self.out.length) for start in self._pages) if self._has_pages else None

    # -- elements --

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._in_properties and self._paragraphs:
            self._property(self._paragraphs[-1], name, attributes.get("val", ""))
        elif (start := _STARTS.get(name)) is not None:
            start(self, attributes)

    def _property(self, paragraph: _Paragraph, name: str, value: str) -> None:
        if name == "pStyle":
            paragraph.style = value
        elif name == "numId":
            paragraph.numbering = value
        elif name == "ilvl" and value.isascii() and value.isdigit():
            paragraph.numbering_level = min(int(value[:3]), 8)
        elif name == "outlineLvl" and value.isascii() and value.isdigit():
            paragraph.outline = int(value[:3])

    def _start_paragraph(self, attributes: Mapping[str, str]) -> None:
        self._paragraphs.append(_Paragraph())

    def _start_properties(self, attributes: Mapping[str, str]) -> None:
        self._in_properties = True

    def _end_properties(self) -> None:
        self._in_properties = False

    def _start_run(self, attributes: Mapping[str, str]) -> None:
        self._is_hidden = False

    def _hide(self, attributes: Mapping[str, str]) -> None:
        self._is_hidden = is_on(attributes)

    def _start_text(self, attributes: Mapping[str, str]) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False

    def _break(self, attributes: Mapping[str, str]) -> None:
        self._insert("" if attributes.get("type") == "page" else "\n")

    def _insert(self, text: str) -> None:
        if self._paragraphs and not self._is_hidden:
            self._paragraphs[-1].pieces.append(text)

    def _page(self, attributes: Mapping[str, str]) -> None:
        self._has_pages = True
        if self._paragraphs:
            paragraph = self._paragraphs[-1]
            paragraph.breaks.append(len("".join(paragraph.pieces).strip()))

    def _note(self, attributes: Mapping[str, str]) -> None:
        if self._paragraphs and (note := self._notes.get(attributes.get("id", ""))):
            self._paragraphs[-1].notes.append(note)

    def _comment(self, attributes: Mapping[str, str]) -> None:
        self._left_out["comment"] = 1

    def _start_table(self, attributes: Mapping[str, str]) -> None:
        self._tables.append(_Table())

    def _start_row(self, attributes: Mapping[str, str]) -> None:
        if self._tables:
            self._tables[-1].rows.append([])
            self._tables[-1].is_header = False

    def _header_row(self, attributes: Mapping[str, str]) -> None:
        if self._tables:
            self._tables[-1].is_header = is_on(attributes)

    def _start_cell(self, attributes: Mapping[str, str]) -> None:
        if self._tables:
            table = self._tables[-1]
            table.cell, table.span, table.is_continued = [], 1, False

    def _cell_span(self, attributes: Mapping[str, str]) -> None:
        value = attributes.get("val", "")
        if self._tables and value.isascii() and value.isdigit():
            self._tables[-1].span = min(int(value[:4]), _MAX_SPAN)

    def _cell_merge(self, attributes: Mapping[str, str]) -> None:
        if self._tables:
            self._tables[-1].is_continued = attributes.get("val", "continue") == "continue"

    def _end_cell(self) -> None:
        if not self._tables or not self._tables[-1].rows:
            return
        table = self._tables[-1]
        row = table.rows[-1]
        text = " ".join(table.cell)
        if table.is_continued and not text and len(table.rows) > 1:
            above = table.rows[-2]
            text = above[len(row)] if len(row) < len(above) else ""
        row += [text, *[""] * (table.span - 1)]
        table.cell = []

    def _end_row(self) -> None:
        if self._tables and self._tables[-1].is_header and self._tables[-1].headers == len(self._tables[-1].rows) - 1:
            self._tables[-1].headers += 1

    def _end_table(self) -> None:
        if not self._tables:
            return
        table = self._tables.pop()
        if self._tables:  # a table in a cell is that cell's text
            self._tables[-1].cell += [cell for row in table.rows for cell in row if cell]
        elif max(map(len, table.rows), default=0) < 2:  # a frame around text
            for row in table.rows:
                self.out.add(BlockKind.PARAGRAPH, "\n".join(row))
        else:
            write_table(self.out, table.rows, headers=table.headers or None)

    def _end_paragraph(self) -> None:
        if not self._paragraphs:
            return
        paragraph = self._paragraphs.pop()
        self._is_hidden = False
        text = "".join(paragraph.pieces).strip()
        style = self._styles.get(paragraph.style or "", Resolved())
        if self._tables:
            self._tables[-1].cell += [text, *paragraph.notes] if text else paragraph.notes
            self._pages += [self.out.length] * len(paragraph.breaks)
            return
        if style.is_contents:
            self._left_out["contents"] = 1
            self._pages += [self.out.length] * len(paragraph.breaks)
            return
        mark, is_number = self._mark(paragraph, style) if text else ("", False)
        written = self._write(text, mark, is_number, paragraph, style)
        self._pages += [written + min(at, len(text)) for at in paragraph.breaks]
        for note in paragraph.notes:
            self.out.add(BlockKind.PARAGRAPH, note)

    def _write(self, text: str, mark: str, is_number: bool, paragraph: _Paragraph, style: Resolved) -> int:
        """Return where its text begins."""
        level = paragraph.outline + 1 if paragraph.outline is not None and paragraph.outline < 9 else style.heading
        if style.is_title and text:
            self.title = self.title or clean_title(text)
            level = level or 1
        if level and len(text) <= _MAX_HEADING:
            heading = " ".join(text.split())
            self.out.add(BlockKind.HEADING, f"{mark} {heading}" if is_number else heading, level=level)
        elif mark:
            depth = self._depth(paragraph, style)
            self.out.add(BlockKind.LIST, f"{'  ' * depth}{mark} {text}", level=depth)
        else:
            self.out.add(BlockKind.PARAGRAPH, text)
        return self.out.length - len(text)

    def _mark(self, paragraph: _Paragraph, style: Resolved) -> tuple[str, bool]:
        numbering = paragraph.numbering if paragraph.numbering is not None else style.numbering
        if numbering is None or numbering == "0":
            return "", False
        return self._numbering.mark(numbering, self._depth(paragraph, style))

    def _depth(self, paragraph: _Paragraph, style: Resolved) -> int:
        level = paragraph.numbering_level
        return min(style.numbering_level if level is None else level, 8)


_STARTS: dict[str, Callable[[_Reader, Mapping[str, str]], None]] = {
    "p": _Reader._start_paragraph,
    "pPr": _Reader._start_properties,
    "r": _Reader._start_run,
    "vanish": _Reader._hide,
    "t": _Reader._start_text,
    "tab": lambda reader, _: reader._insert("\t"),
    "br": _Reader._break,
    "cr": lambda reader, _: reader._insert("\n"),
    "noBreakHyphen": lambda reader, _: reader._insert("-"),
    "lastRenderedPageBreak": _Reader._page,
    "footnoteReference": _Reader._note,
    "endnoteReference": lambda reader, attributes: reader._note({"id": f"end{attributes.get('id', '')}"}),
    "commentReference": _Reader._comment,
    "tbl": _Reader._start_table,
    "tr": _Reader._start_row,
    "tblHeader": _Reader._header_row,
    "tc": _Reader._start_cell,
    "gridSpan": _Reader._cell_span,
    "vMerge": _Reader._cell_merge,
}
_ENDS: dict[str, Callable[[_Reader], None]] = {
    "p": _Reader._end_paragraph,
    "pPr": _Reader._end_properties,
    "t": _Reader._end_text,
    "tc": _Reader._end_cell,
    "tr": _Reader._end_row,
    "tbl": _Reader._end_table,
}


def _notes(package: Package, document: str) -> dict[str, str]:
    """Return the text of footnotes by their id, of endnotes by "end" and their id."""
    notes: dict[str, str] = {}
    for kind_of_note, prefix in (("footnotes", ""), ("endnotes", "end")):
        part = package.related(document, kind_of_note)
        skipping = Skipping(_LEFT_OUT)
        current, in_text = "", False
        for kind, name, attributes in package.events(part) if part else ():
            if kind == TEXT:
                if in_text and current:
                    notes[current] = notes.get(current, "") + name
            elif skipping(kind, name):
                continue
            elif name in ("footnote", "endnote"):
                is_text = kind == START and attributes.get("type", "normal") == "normal"
                current = f"{prefix}{attributes.get('id', '')}" if is_text else ""
            elif name == "t":
                in_text = kind == START
            elif name == "p" and current in notes:
                notes[current] += " "
    return {note: " ".join(text.split()) for note, text in notes.items()}
