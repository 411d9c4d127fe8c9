"""Excel workbooks to text: a sheet a page with its name as heading, blocks of rows as tables with header and units,
values as their formats show them. Rows come one at a time. Hidden sheets, rows and columns are left out; formulas show
the result that was stored; macros are never opened.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.ooxml import Package, Skipping, is_on
from terakoya.rag.indexing.parsers.parsed import (
    MAX_CHARACTERS,
    BlockKind,
    Parsed,
    TextWriter,
    check_length,
    check_not_empty,
)
from terakoya.rag.indexing.parsers.tables import write_table
from terakoya.rag.indexing.parsers.xlsx_numbers import built_in_format, shown
from terakoya.rag.indexing.parsers.xml_events import START, TEXT

MAX_CELLS = 2_000_000
"""With a value, of one workbook: beyond it their text is longer than a document may be anyway."""
_MAX_MERGES = 50_000
_MAX_COLUMN = 16_384
_REFERENCE = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_MERGE = re.compile(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})"')
_SCAN_BYTES = 1 << 20
_LEFT_OUT = frozenset(("rPh", "phoneticPr"))
Cells = dict[int, str]
"""Column, from 1 -> text."""


def parse(path: Path) -> Parsed:
    with Package(path) as package:
        main = package.main_part("xl/workbook.xml")
        book = _Book(package, main)
        out = TextWriter()
        starts: list[int] = []
        for name, part in book.sheets:
            start = out.length + (2 if out.length else 0)
            out.add(BlockKind.HEADING, name, level=1)
            starts.append(min(start, out.length))
            for region in _regions(book.rows(part)):
                _write_region(region, out)
        notices = [*book.notices(), *(["macros were left out"] if "xl/vbaProject.bin" in package else [])]
        title = package.title()
    if not any(block.kind is not BlockKind.HEADING for block in out.blocks):
        raise UnreadableDocument("the workbook's sheets hold no values")
    return check_not_empty(Parsed(out.text(), title, out.blocks, tuple(starts), tuple(notices)))


@dataclass(slots=True)
class _Cell:
    column: int = 0
    kind: str = "n"
    style: int = 0
    value: list[str] = field(default_factory=list)
    has_formula: bool = False


class _Book:
    """What the sheets share: texts, formats, the count of cells."""

    def __init__(self, package: Package, main: str) -> None:
        self._package = package
        self._texts = _shared_texts(package, main)
        self._formats = _formats(package, main)
        self._is_1904 = False
        self._cells = 0
        self._hidden_rows = self._hidden_columns = self._without_result = 0
        self._hidden_sheets: list[str] = []
        self.sheets: list[tuple[str, str]] = []
        """Name and part of each, in order."""
        targets = package.relationships(main)
        for kind, name, attributes in package.events(main):
            if kind != START:
                continue
            if name == "workbookPr":
                self._is_1904 = "date1904" in attributes and is_on(attributes, "date1904")
            elif name == "sheet":
                target = targets.get(attributes.get("r:id", ""))
                label = " ".join(attributes.get("name", "").split()) or f"Sheet {len(self.sheets) + 1}"
                if attributes.get("state", "visible") != "visible":
                    self._hidden_sheets.append(label)
                elif target is not None and target.kind == "/worksheet" and target.target in package:
                    self.sheets.append((label, target.target))
        if not self.sheets:
            raise UnreadableDocument("the workbook has no sheet that is shown")

    def notices(self) -> list[str]:
        return [
            *([f"hidden sheets were left out: {', '.join(self._hidden_sheets[:10])}"] if self._hidden_sheets else []),
            *([f"{self._hidden_rows:,} hidden or filtered rows were left out"] if self._hidden_rows else []),
            *([f"{self._hidden_columns:,} hidden columns were left out"] if self._hidden_columns else []),
            *(
                [f"{self._without_result:,} formulas have no stored result; open and save the file in Excel"]
                if self._without_result
                else []
            ),
        ]

    def rows(self, part: str) -> Iterator[tuple[int, Cells]]:
        """Yield the rows that hold values, with their numbers from 1."""
        merges = _Merges(self._package, part)
        hidden: list[tuple[int, int]] = []
        row, cells, is_hidden = 0, Cells(), False
        cell: _Cell | None = None
        collects = False
        skipping = Skipping(_LEFT_OUT)
        for kind, name, attributes in self._package.events(part):
            if kind == TEXT:
                if collects and cell is not None:
                    cell.value.append(name)
            elif skipping(kind, name):
                continue
            elif name in ("v", "t"):
                collects = kind == START
            elif kind == START:
                if name == "c":
                    cell = self._cell(attributes, cell)
                elif name == "f" and cell is not None:
                    cell.has_formula = True
                elif name == "row":
                    row, cells, cell = _row_number(attributes, row), {}, None
                    is_hidden = "hidden" in attributes and is_on(attributes, "hidden")
                elif name == "col" and "hidden" in attributes and is_on(attributes, "hidden"):
                    hidden.append((_small(attributes.get("min", "")), _small(attributes.get("max", ""))))
                    self._hidden_columns += max(0, hidden[-1][1] - hidden[-1][0] + 1)
            elif name == "c" and cell is not None:
                text = self._text(cell)
                if text and not any(first <= cell.column <= last for first, last in hidden):
                    cells[cell.column] = text
            elif name == "row":
                self._hidden_rows += is_hidden and bool(cells)
                merged = merges.filled(row, cells)
                if cells and not is_hidden:
                    yield row, merged

    def _cell(self, attributes: Mapping[str, str], before: _Cell | None) -> _Cell:
        match = _REFERENCE.fullmatch(attributes.get("r", ""))
        column = _column(match[1]) if match else (before.column if before else 0) + 1
        return _Cell(min(column, _MAX_COLUMN), attributes.get("t", "n"), _small(attributes.get("s", "")))

    def _text(self, cell: _Cell) -> str:
        value = "".join(cell.value)
        if not value:
            self._without_result += cell.has_formula
            return ""
        self._cells += 1
        if self._cells > MAX_CELLS:
            raise UnreadableDocument(f"the workbook has more than {MAX_CELLS:,} cells with a value; split it")
        if cell.kind == "s":
            at = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
            return self._texts[at] if 0 <= at < len(self._texts) else ""
        if cell.kind == "b":
            return "TRUE" if value.strip() == "1" else "FALSE"
        if cell.kind == "n":
            form = self._formats[cell.style] if cell.style < len(self._formats) else ""
            return shown(value.strip(), form, is_1904=self._is_1904)
        return " ".join(value.split())


class _Merges:
    """Cells that were merged downwards show their value in each row. Which they are stands behind the rows in the file,
    so it is looked for first, in its bytes.
    """

    def __init__(self, package: Package, part: str) -> None:
        self._ranges: list[tuple[int, int, int]] = []
        """First row, last row, column."""
        rest = b""
        with package.open(part) as file:
            while chunk := file.read(_SCAN_BYTES):
                rest += chunk
                for first_column, first, _, last in _MERGE.findall(rest):
                    if first != last and len(self._ranges) < _MAX_MERGES:
                        self._ranges.append((int(first), int(last), _column(first_column.decode())))
                rest = rest[max(rest.rfind(b"<"), 0) :][-200:]
        self._ranges.sort()
        self._values: dict[tuple[int, int, int], str] = {}
        self._open: list[tuple[int, int, int]] = []
        self._next = 0

    def filled(self, row: int, cells: Cells) -> Cells:
        """Return a row's cells with those that go on from above. To be called for each row in order."""
        if not self._ranges:
            return cells
        until = bisect_left(self._ranges, (row + 1,))
        self._open += self._ranges[self._next : until]
        self._next = max(self._next, until)
        self._open = [one for one in self._open if one[1] >= row]
        filled = dict(cells)
        for one in self._open:
            if one[0] == row and one[2] in cells:
                self._values[one] = cells[one[2]]
            elif one in self._values:
                filled.setdefault(one[2], self._values[one])
        return filled


def _regions(rows: Iterator[tuple[int, Cells]]) -> Iterator[list[Cells]]:
    """Yield the rows that stand together, without an empty one between them."""
    region: list[Cells] = []
    last = characters = 0
    for number, cells in rows:
        if region and number != last + 1:
            yield region
            region, characters = [], 0
        region.append(cells)
        characters += sum(map(len, cells.values()))
        check_length(characters)
        last = number
    if region:
        yield region


def _write_region(region: list[Cells], out: TextWriter) -> None:
    columns = sorted({column for cells in region for column in cells})
    if len(columns) == 1:
        for cells in region:
            out.add(BlockKind.PARAGRAPH, cells[columns[0]])
        return
    if len(columns) * len(region) > MAX_CHARACTERS:
        raise UnreadableDocument(
            f"a table of the workbook has {len(region):,} rows of {len(columns):,} columns, nearly all of them empty; "
            "split it"
        )
    write_table(out, [[cells.get(column, "") for column in columns] for cells in region])


def _shared_texts(package: Package, main: str) -> list[str]:
    part = package.related(main, "sharedStrings")
    texts: list[str] = []
    pieces: list[str] = []
    collects = False
    characters = 0
    skipping = Skipping(_LEFT_OUT)  # readings of kanji
    for kind, name, _ in package.events(part) if part else ():
        if kind == TEXT:
            pieces += [name] if collects else []
        elif skipping(kind, name):
            continue
        elif name == "t":
            collects = kind == START
        elif name == "si":
            if kind == START:
                pieces = []
            else:
                texts.append(" ".join("".join(pieces).split()))
                characters += len(texts[-1])
                check_length(characters)
                if len(texts) > MAX_CELLS:
                    raise UnreadableDocument(f"the workbook has more than {MAX_CELLS:,} texts; split it")
    return texts


def _formats(package: Package, main: str) -> list[str]:
    """Return the number format of each cell style."""
    part = package.related(main, "styles")
    own: dict[int, str] = {}
    formats: list[str] = []
    in_styles = False
    for kind, name, attributes in package.events(part) if part else ():
        if name == "cellXfs":
            in_styles = kind == START
        elif kind == START and name == "numFmt":
            own[_small(attributes.get("numFmtId", ""))] = attributes.get("formatCode", "")[:200]
        elif kind == START and name == "xf" and in_styles and len(formats) < 100_000:
            number = _small(attributes.get("numFmtId", ""))
            formats.append(own.get(number) or built_in_format(number))
    return formats


def _row_number(attributes: Mapping[str, str], before: int) -> int:
    return _small(attributes.get("r", "")) or before + 1


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _small(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0
