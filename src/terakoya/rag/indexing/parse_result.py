"""How a parsed document gets from the child to its parent: a file of JSON lines, written by the child, and believed
by the parent only as far as it was checked. One line a passage, so that reading never holds the interpreter long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from terakoya.domain.documents import Language
from terakoya.exceptions import AppException, InvalidConfig, RAGError, StorageFull, UnreadableDocument
from terakoya.rag.indexing.parsed_document import ParsedDocument, ParsedPassage
from terakoya.rag.indexing.parsers.parsed import MAX_CHARACTERS, MAX_TITLE

MAX_RESULT_BYTES = 512 << 20
_MAX_LINE = 6 * MAX_CHARACTERS + (1 << 20)
_MAX_NOTICES, _MAX_NOTICE = 50, 500
_MAX_HEADINGS, _MAX_HEADING = 64, 300
_MAX_PASSAGE = 100_000
_MAX_ERROR = 1_000
_ERRORS: dict[str, type[AppException]] = {
    error.code: error for error in (UnreadableDocument, InvalidConfig, RAGError, StorageFull)
}


class Contradiction(Exception):
    """The result is not what a sound parser makes; says where."""


def write_result(file: BinaryIO, document: ParsedDocument) -> None:
    head = {
        "title": document.title,
        "language": document.language,
        "pages": document.pages,
        "notices": [notice[:_MAX_NOTICE] for notice in document.notices[:_MAX_NOTICES]],
        "passages": len(document.passages),
        "text": document.text,
    }
    file.write(_line(head))
    for passage in document.passages:
        terms = list(chain.from_iterable(passage.terms.items()))
        file.write(_line([passage.start, passage.end, passage.page, passage.heading, terms]))
    file.flush()


def write_error(file: BinaryIO, message: str, code: str) -> None:
    file.write(_line({"error": message[:_MAX_ERROR], "code": code}))
    file.flush()


def child_error(line: dict[str, Any]) -> AppException:
    """Return what a child said went wrong."""
    error = _ERRORS.get(str(line.get("code")), UnreadableDocument)
    return error(str(line["error"])[:_MAX_ERROR])


def read_result(path: Path) -> ParsedDocument:
    """Raises: the child's own error; Contradiction."""
    with path.open("rb") as file:
        lines = _lines(file)
        head = next(lines, None)
        if not isinstance(head, dict):
            raise Contradiction("it has no beginning")
        if "error" in head:
            raise child_error(head)
        text = _text(head.get("text"), MAX_CHARACTERS, "text")
        pages = head.get("pages")
        if pages is not None:
            _require(_is_count(pages) and 1 <= pages <= MAX_CHARACTERS, "pages")
        passages: list[ParsedPassage] = []
        position = 0
        for line in lines:
            passages.append(_passage(line, position, text, pages))
            position = passages[-1].end
    _require(len(passages) == head.get("passages") and bool(passages), "number of passages")
    title = head.get("title")
    notices = head.get("notices")
    _require(isinstance(notices, list) and len(notices) <= _MAX_NOTICES, "notices")
    _require(head.get("language") in tuple(Language), "language")
    return ParsedDocument(
        title=None if title is None else _text(title, MAX_TITLE, "title"),
        text=text,
        language=Language(head["language"]),
        pages=pages,
        notices=tuple(_text(notice, _MAX_NOTICE, "notice") for notice in cast("list[Any]", notices)),
        passages=tuple(passages),
    )


def _passage(line: Any, position: int, text: str, pages: int | None) -> ParsedPassage:
    _require(isinstance(line, list) and len(line) == 5, "passage")
    start, end, page, heading, terms = line
    _require(_is_count(start) and _is_count(end) and position <= start < end <= len(text), "offsets")
    _require(end - start <= _MAX_PASSAGE, "length of a passage")
    _require(not text[position:start].strip(), "text between passages")
    _require(page is None if pages is None else _is_count(page) and 1 <= page <= pages, "page")
    _require(isinstance(heading, list) and len(heading) <= _MAX_HEADINGS, "headings")
    _require(isinstance(terms, list) and len(terms) % 2 == 0, "terms")
    _require(all(map(_is_count, terms)) and all(term < 1 << 32 for term in terms), "terms")
    counts = dict(zip(terms[::2], terms[1::2], strict=True))
    _require(len(counts) * 2 == len(terms) and all(counts.values()), "terms")
    return ParsedPassage(start, end, page, tuple(_text(part, _MAX_HEADING, "heading") for part in heading), counts)


def _lines(file: BinaryIO) -> Iterator[Any]:
    while line := file.readline(_MAX_LINE):
        _require(line.endswith(b"\n"), "end")
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Contradiction("it is not JSON") from error


def _text(value: Any, most: int, name: str) -> str:
    _require(isinstance(value, str) and len(value) <= most and "\0" not in value, name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Contradiction(f"{name} holds lone surrogates") from error
    return cast(str, value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _require(is_so: bool, name: str) -> None:
    if not is_so:
        raise Contradiction(f"its {name} cannot be right")


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
