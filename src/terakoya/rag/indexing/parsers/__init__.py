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
}

parsers: Registry[Parser] = Registry(
    "parser",
    {
        "plain": "terakoya.rag.indexing.parsers.plain:parse",
        "markdown": "terakoya.rag.indexing.parsers.markdown:parse",
        "html": "terakoya.rag.indexing.parsers.html:parse",
        "pdf": "terakoya.rag.indexing.parsers.pdf:parse",
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
        known = ", ".join(known_suffixes())
        raise UnreadableDocument(f"{filename!r} is of a type that is not read; these are: {known}")
    if name == "pdf" and not is_pdf:
        looks_like = name_binary(head) or "text"
        raise UnreadableDocument(
            f"{filename!r} is not a PDF: it does not begin with %PDF- (it looks like {looks_like})"
        )
    if name != "pdf" and (binary := name_binary(head)) is not None:
        advice = "; rename it to .pdf" if binary == "a PDF" else ""
        raise UnreadableDocument(f"{filename!r} is not text but {binary}{advice}")
    return name


def _looks_like_html(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))
