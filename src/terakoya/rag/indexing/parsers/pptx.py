"""PowerPoint presentations to text: a slide a page, its title a heading, lists and tables as they are, the speaker's
notes after it. Hidden slides, dates, numbers and footers are left out; macros are never opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.ooxml import Package, Skipping, is_on
from terakoya.rag.indexing.parsers.parsed import BlockKind, Parsed, TextWriter, check_not_empty, clean_title
from terakoya.rag.indexing.parsers.tables import write_table
from terakoya.rag.indexing.parsers.xml_events import START, TEXT, Event

MAX_SLIDES = 10_000
_LEFT_OUT = frozenset(("Fallback",))
_TITLES = ("title", "ctrTitle")
_FURNITURE = ("sldNum", "dt", "ftr", "hdr", "sldImg")
_MAX_HEADING = 120
_UNREAD = {"chart": "charts were left out", "diagram": "diagrams were left out"}


@dataclass(slots=True)
class _Line:
    pieces: list[str] = field(default_factory=list)
    level: int = 0
    bullet: bool | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces).strip()


@dataclass(slots=True)
class _Shape:
    placeholder: str | None = None
    """Its kind; None for a free box."""
    is_hidden: bool = False
    lines: list[_Line] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    has_header: bool = False


def parse(path: Path) -> Parsed:
    with Package(path) as package:
        main = package.main_part("ppt/presentation.xml")
        slides = _slides(package, main)
        out = TextWriter()
        starts: list[int] = []
        hidden: list[int] = []
        unread: set[str] = set()
        has_notes = False
        title = package.title()
        for number, slide in enumerate(slides, start=1):
            starts.append(out.length)
            shapes, shows = _read(package, slide, unread)
            if not shows:
                hidden.append(number)
                continue
            written = out.length
            heading = _write_slide(shapes, out)
            title = title or heading
            notes = package.related(slide, "notesSlide")
            has_notes |= notes is not None and _write_notes(_read(package, notes, set())[0], out)
            starts[-1] = written if out.length == written or not written else written + 2
        notices = [
            *([f"hidden slides were left out: {', '.join(map(str, hidden[:20]))}"] if hidden else []),
            *(["the speaker's notes are read with their slides"] if has_notes else []),
            *sorted(unread),
            *(["macros were left out"] if "ppt/vbaProject.bin" in package else []),
        ]
    return check_not_empty(Parsed(out.text(), title, out.blocks, tuple(starts), tuple(notices)))


def _slides(package: Package, main: str) -> list[str]:
    """Return the names of the slides' parts in the order they are shown."""
    targets = package.relationships(main)
    ids = [
        attributes.get("r:id", "")
        for kind, name, attributes in package.events(main)
        if kind == START and name == "sldId"
    ]
    slides = [targets[found].target for found in ids if found in targets and targets[found].target in package]
    if not slides:
        raise UnreadableDocument("the presentation has no slides")
    if len(slides) > MAX_SLIDES:
        raise UnreadableDocument(
            f"the presentation has {len(slides):,} slides; at most {MAX_SLIDES:,} are read: split it"
        )
    return slides


def _read(package: Package, part: str, unread: set[str]) -> tuple[list[_Shape], bool]:
    """Return a slide's shapes in order, and whether it is shown."""
    shows = True

    def events() -> Iterator[Event]:
        nonlocal shows
        skipping = Skipping(_LEFT_OUT)
        for kind, name, attributes in package.events(part):
            if kind == START and name == "sld":
                shows = is_on(attributes, "show")
            if kind == TEXT or not skipping(kind, name):
                yield kind, name, attributes

    reader = _SlideReader(unread)
    for kind, name, attributes in events():
        reader.take(kind, name, attributes)
    return reader.shapes, shows


class _SlideReader:
    def __init__(self, unread: set[str]) -> None:
        self.shapes: list[_Shape] = []
        self._unread = unread
        self._shape = _Shape()
        self._line: _Line | None = None
        self._cell: list[str] | None = None
        self._in_text = False

    def take(self, kind: str, name: str, attributes: Mapping[str, str]) -> None:
        if kind == TEXT:
            if self._in_text and self._line is not None:
                self._line.pieces.append(name)
        elif kind == START:
            self._start(name, attributes)
        else:
            self._end(name)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        match name:
            case "sp" | "graphicFrame":
                self._shape = _Shape()
                self.shapes.append(self._shape)
            case "cNvPr":
                self._shape.is_hidden = "hidden" in attributes and is_on(attributes, "hidden")
            case "ph":
                self._shape.placeholder = attributes.get("type", "obj")
            case "graphicData":
                self._unread |= {said for what, said in _UNREAD.items() if what in attributes.get("uri", "")}
            case "p":
                self._line = _Line()
            case "pPr" if self._line is not None:
                level = attributes.get("lvl", "0")
                self._line.level = min(int(level), 8) if level.isascii() and level.isdigit() and len(level) < 3 else 0
            case "buNone" | "buChar" | "buAutoNum" if self._line is not None:
                self._line.bullet = name != "buNone"
            case "t":
                self._in_text = True
            case "br" if self._line is not None:
                self._line.pieces.append("\n")
            case "tblPr":
                self._shape.has_header = "firstRow" in attributes and is_on(attributes, "firstRow")
            case "tr":
                self._shape.rows.append([])
            case "tc":
                self._cell = []

    def _end(self, name: str) -> None:
        match name:
            case "t":
                self._in_text = False
            case "p" if self._line is not None:
                line, self._line = self._line, None
                if self._cell is not None:
                    self._cell.append(line.text)
                else:
                    self._shape.lines.append(line)
            case "tc" if self._cell is not None:
                if self._shape.rows:
                    self._shape.rows[-1].append(" ".join(filter(None, self._cell)))
                self._cell = None


def _write_slide(shapes: list[_Shape], out: TextWriter) -> str | None:
    """Write what is seen of a slide and return its title."""
    shown = [shape for shape in shapes if not shape.is_hidden and shape.placeholder not in _FURNITURE]
    titles = [shape for shape in shown if shape.placeholder in _TITLES and any(line.text for line in shape.lines)]
    heading = " ".join(" ".join(line.text.split()) for shape in titles for line in shape.lines if line.text)
    if heading:
        out.add(BlockKind.HEADING, heading, level=1)
    for shape in shown:
        if shape not in titles:
            # Without a title, the first short line is what the slide is called; passages need to leave the last one's.
            heading = heading or _leading_line(shape, out)
            _write_shape(shape, out)
    return clean_title(heading)


def _leading_line(shape: _Shape, out: TextWriter) -> str:
    first = next((line for line in shape.lines if line.text), None)
    if first is None or len(first.text) > _MAX_HEADING:
        return ""
    shape.lines.remove(first)
    heading = " ".join(first.text.split())
    out.add(BlockKind.HEADING, heading, level=1)
    return heading


def _write_shape(shape: _Shape, out: TextWriter) -> None:
    lines = [line for line in shape.lines if line.text]
    is_list = shape.placeholder in ("body", "obj") and len(lines) > 1
    for line in lines:
        if line.bullet or (is_list and line.bullet is None) or line.level:
            out.add(BlockKind.LIST, f"{'  ' * line.level}- {line.text}", level=line.level)
        else:
            out.add(BlockKind.PARAGRAPH, line.text)
    write_table(out, shape.rows, headers=1 if shape.has_header else None)


def _write_notes(shapes: list[_Shape], out: TextWriter) -> bool:
    written = out.length
    for shape in shapes:
        if shape.placeholder == "body":
            for line in shape.lines:
                out.add(BlockKind.PARAGRAPH, line.text)
    return out.length > written
