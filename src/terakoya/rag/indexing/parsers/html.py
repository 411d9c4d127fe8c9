"""HTML to the text a reader sees: headings, items, tables and code as blocks. Scripts, styles, comments, controls,
menus and what is marked as hidden never enter it. Walks without recursion: depth does not matter.
"""

from __future__ import annotations

import re
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.decoding import decode_file
from terakoya.rag.indexing.parsers.html_encoding import declared_encoding
from terakoya.rag.indexing.parsers.parsed import BlockKind, Parsed, TextWriter, check_not_empty, clean_title, joint
from terakoya.rag.indexing.parsers.tables import write_table

_SILENT = frozenset(
    (
        *(
            "head",
            "script",
            "style",
            "template",
            "noscript",
            "iframe",
            "object",
            "embed",
            "applet",
            "frame",
            "frameset",
        ),
        *("svg", "canvas", "audio", "video", "map", "button", "select", "datalist", "input", "textarea", "dialog"),
        *(
            "rp",
            "rt",
            "rtc",
            "annotation",
            "annotation-xml",
            "link",
            "meta",
            "base",
            "title",
            "noframes",
            "noembed",
            "progress",
        ),
    )
)
_INLINE = frozenset(
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i"),
        *("ins", "kbd", "label", "mark", "q", "ruby", "rb", "s", "samp", "small", "span", "strike", "strong", "sub"),
        *("sup", "time", "tt", "u", "var", "wbr", "nobr", "slot", "output", "img", "math", "mi", "mn", "mo", "mrow"),
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LAYOUT = "table, pre, h1, h2, h3"
"""A table that holds one of these lays out the page; its cells are read as what they hold."""
_MENUS = frozenset(("nav", "menu"))
_HIDDEN_STYLE = re.compile(
    r"(?:display:none|visibility:(?:hidden|collapse)|content-visibility:hidden|opacity:0*\.?0*(?:%|;|!|$)"
    r"|font-size:0*\.?0*(?:[a-z%]+)?(?:;|!|$))",
    re.I,
)
_CSS_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
_CSS_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?")
_WHITE = re.compile(r"[ \t\n\r\f]+")


def parse(path: Path) -> Parsed:
    with path.open("rb") as file:
        declared = declared_encoding(file.read(4096))
    decoded = decode_file(path, declared=declared)
    out = TextWriter()
    tree = _tree(decoded.text)
    walker = write_html_tree(tree, out)
    titles = tree.css("head > title")
    title = clean_title(titles[0].text()) if titles else None
    notices = (*decoded.notices, *(["menus were left out"] if walker.left_out_menus else []))
    return check_not_empty(Parsed(out.text(), title or walker.first_heading, out.blocks, notices=notices))


def write_html(fragment: str, out: TextWriter) -> None:
    """Write what a reader sees of a piece of HTML."""
    write_html_tree(_tree(fragment), out)


def write_html_tree(tree: LexborHTMLParser, out: TextWriter) -> _Walker:
    walker = _Walker(out)
    if tree.body is not None:
        walker.walk(tree.body)
    return walker


def _tree(text: str) -> LexborHTMLParser:
    try:
        return LexborHTMLParser(text)
    except SelectolaxError as error:
        raise UnreadableDocument(f"the HTML cannot be read: {error}") from error


class _Walker:
    """One pass over the tree, in document order."""

    def __init__(self, out: TextWriter) -> None:
        self.left_out_menus = False
        self.first_heading: str | None = None
        self._out = out
        self._inline: list[str] = []
        self._heading = 0
        self._preformatted = 0
        self._lists: list[int | None] = []
        self._mark: str | None = None
        self._tables: list[int] = []
        """Ids of tables of data that are open; only the outermost is written as rows."""
        self._rows: list[list[str]] = []

    def walk(self, root: LexborNode) -> None:
        node = root
        while True:
            child = self._enter(node)
            if child is not None:
                node = child
                continue
            while True:
                if node.mem_id == root.mem_id:
                    self._flush()
                    return
                following = node.next
                if following is not None:
                    node = following
                    break
                parent = node.parent
                assert parent is not None
                node = parent
                self._leave(node)

    # -- nodes --

    def _enter(self, node: LexborNode) -> LexborNode | None:
        """Take in what the node shows itself; return its first child if that is to be walked."""
        if node.is_text_node:
            self._text(node.text_content or "")
            return None
        if not node.is_element_node:
            return None
        tag = node.tag or ""
        if tag in _SILENT or _is_hidden(node):
            return None
        if tag in _MENUS:
            self.left_out_menus = True
            return None
        self._open(tag, node)
        first = node.first_child
        if first is None:
            self._leave(node)
        return first

    def _open(self, tag: str, node: LexborNode) -> None:
        if tag in _INLINE:
            return
        if tag == "br":
            self._inline.append("\n")
        elif self._tables:
            self._open_in_table(tag)
        else:
            self._flush()
            if tag in _HEADINGS:
                self._heading = _HEADINGS[tag]
            elif tag in ("pre", "listing", "xmp", "plaintext"):
                self._preformatted += 1
            elif tag == "ul":
                self._lists.append(None)
            elif tag == "ol":
                start = node.attributes.get("start") or ""
                self._lists.append(int(start) if start.isascii() and start.isdigit() and len(start) < 7 else 1)
            elif tag == "li":
                self._mark = self._next_mark()
            elif tag == "table" and not any(child.css_first(_LAYOUT) for child in node.iter()):
                self._tables.append(node.mem_id)
                self._rows = []

    def _open_in_table(self, tag: str) -> None:
        if tag == "tr":
            self._end_cell()
            self._rows.append([])
        elif tag in ("td", "th"):
            self._end_cell()
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append("")
        elif tag == "caption":
            self._end_cell()
        else:
            self._inline.append(" ")

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _INLINE or tag == "br":
            return
        if self._tables:
            if node.mem_id == self._tables[-1]:
                self._end_table()
            elif tag in ("td", "th", "caption"):
                self._end_cell()
            else:
                self._inline.append(" ")
            return
        self._flush()
        if tag in _HEADINGS:
            self._heading = 0
        elif tag in ("pre", "listing", "xmp", "plaintext"):
            self._preformatted = max(0, self._preformatted - 1)
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._mark = None

    # -- text --

    def _text(self, text: str) -> None:
        self._inline.append(text if self._preformatted and not self._tables else _WHITE.sub(_white, text))

    def _flush(self) -> None:
        """Write what was collected as one block."""
        raw = "".join(self._inline)
        self._inline.clear()
        if not raw.strip():
            return
        if self._preformatted:
            self._out.add(BlockKind.CODE, raw)
            return
        text = _tidy(raw)
        if self._heading:
            text = " ".join(text.split())
            self.first_heading = self.first_heading or clean_title(text)
            self._out.add(BlockKind.HEADING, text, level=self._heading)
        elif self._mark is not None:
            depth = max(0, len(self._lists) - 1)
            self._out.add(BlockKind.LIST, f"{'  ' * min(depth, 8)}{self._mark} {text}", level=depth)
            self._mark = None
        else:
            self._out.add(BlockKind.PARAGRAPH, text)

    def _next_mark(self) -> str:
        number = self._lists[-1] if self._lists else None
        if number is None:
            return "-"
        self._lists[-1] = number + 1
        return f"{number}."

    def _end_cell(self) -> None:
        text = " ".join(_tidy("".join(self._inline)).split())
        self._inline.clear()
        if not text:
            return
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] = " ".join(filter(None, (self._rows[-1][-1], text)))
        else:
            self._rows.append([text])

    def _end_table(self) -> None:
        self._end_cell()
        self._tables.pop()
        rows = [row for row in self._rows if any(row)]
        self._rows = []
        write_table(self._out, rows)


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if not attributes:
        return False
    if "hidden" in attributes or (attributes.get("aria-hidden") or "").strip().lower() == "true":
        return True
    style = attributes.get("style")
    if not style:
        return False
    style = _CSS_ESCAPE.sub(lambda match: _character(match.group(1)), _CSS_COMMENT.sub("", style))
    return _HIDDEN_STYLE.search("".join(style.split())) is not None


def _character(code: str) -> str:
    number = int(code, 16)
    return chr(number) if 0 < number < 0x110000 else "\ufffd"


def _white(match: re.Match[str]) -> str:
    """A run of white space: one space, or nothing where it only breaks a line of Japanese."""
    if "\n" not in match.group():
        return " "
    text = match.string
    before, after = (
        text[match.start() - 1 : match.start()] if match.start() else "",
        text[match.end() : match.end() + 1],
    )
    return joint(before, after) if before and after else " "


def _tidy(text: str) -> str:
    """Collapse spaces, and drop those beside a line break."""
    return "\n".join(" ".join(filter(None, line.split(" "))) for line in text.split("\n")).strip()
