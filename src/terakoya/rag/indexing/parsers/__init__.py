"""The table of parsers and which of them reads a file. A new format is a file and a row here, or another package's
entry point ``terakoya.parsers`` that is named after the file name's ending it reads ("docx"). Imports no parser: they
load in the child process.
"""

from __future__ import annotations

from pathlib import PurePath

from terakoya.data.encodings import name_binary
from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.parsed import Parser
from terakoya.registry import Registry

HEAD_BYTES = 4096
"""How much of a file's beginning ``parser_for`` wants to see."""
_PDF_WITHIN = 1024
"""Readers accept a PDF's signature this far in."""
_SUFFIXES = {
    "txt": "plain",
    "text": "plain",
    "md": "markdown",
    "markdown": "markdown",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "pdf": "pdf",
    "docx": "docx",
    "docm": "docx",
    "pptx": "pptx",
    "pptm": "pptx",
    "xlsx": "xlsx",
    "xlsm": "xlsx",
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}
_OFFICE = {"docx": "a Word document", "pptx": "a PowerPoint presentation", "xlsx": "an Excel workbook"}
_OLD_OFFICE = {"doc": "docx", "xls": "xlsx", "ppt": "pptx"}
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"

parsers: Registry[Parser] = Registry(
    "parser",
    {
        "plain": "terakoya.rag.indexing.parsers.plain:parse",
        "markdown": "terakoya.rag.indexing.parsers.markdown:parse",
        "html": "terakoya.rag.indexing.parsers.html:parse",
        "pdf": "terakoya.rag.indexing.parsers.pdf:parse",
        "docx": "terakoya.rag.indexing.parsers.docx:parse",
        "pptx": "terakoya.rag.indexing.parsers.pptx:parse",
        "xlsx": "terakoya.rag.indexing.parsers.xlsx:parse",
        "csv": "terakoya.rag.indexing.parsers.csv_table:parse",
        "json": "terakoya.rag.indexing.parsers.json_text:parse",
        "jsonl": "terakoya.rag.indexing.parsers.json_text:parse_lines",
    },
    group="terakoya.parsers",
)


def known_suffixes() -> tuple[str, ...]:
    """Endings of the file names that are read, with their dots."""
    others = set(parsers) - set(_SUFFIXES.values())
    return tuple(f".{suffix}" for suffix in (*_SUFFIXES, *sorted(others)))


def parser_for(filename: str, head: bytes) -> str:
    """Return the parser's name, by the file's name and its first HEAD_BYTES.

    Raises: UnreadableDocument for a type that is not read, or content that is not what the name says.
    """
    if not head:
        raise UnreadableDocument(f"{filename!r} is empty")
    suffix = PurePath(filename).suffix.lower().removeprefix(".")
    is_pdf = b"%PDF-" in head[:_PDF_WITHIN]
    if not suffix:
        name = "pdf" if is_pdf else "html" if _looks_like_html(head) else "plain"
    elif suffix in _SUFFIXES:
        name = _SUFFIXES[suffix]
    elif suffix in parsers:
        return suffix
    else:
        if suffix in _OLD_OFFICE:
            raise UnreadableDocument(f"{filename!r} is of an Office before 2007; save it as .{_OLD_OFFICE[suffix]}")
        known = ", ".join(known_suffixes())
        raise UnreadableDocument(f"{filename!r} is of a type that is not read; these are: {known}")
    if name in _OFFICE:
        _check_office(filename, head, name)
        return name
    if name == "pdf" and not is_pdf:
        looks_like = name_binary(head) or "text"
        raise UnreadableDocument(
            f"{filename!r} is not a PDF: it does not begin with %PDF- (it looks like {looks_like})"
        )
    if name != "pdf" and (binary := name_binary(head)) is not None:
        advice = "; rename it to .pdf" if binary == "a PDF" else ""
        raise UnreadableDocument(f"{filename!r} is not text but {binary}{advice}")
    return name


def _check_office(filename: str, head: bytes, name: str) -> None:
    """Raises: UnreadableDocument unless the content is an archive, as such files are."""
    if head.startswith(_ZIP):
        return
    if head.startswith(_OLE):
        raise UnreadableDocument(
            f"{filename!r} has a password or is of an Office before 2007; save a copy without a password as .{name}"
        )
    raise UnreadableDocument(f"{filename!r} is not {_OFFICE[name]}: it looks like {name_binary(head) or 'text'}")


def _looks_like_html(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))
