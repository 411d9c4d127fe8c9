from __future__ import annotations

import pytest

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers import known_suffixes, parser_for, parsers


@pytest.mark.parametrize(
    ("filename", "head", "parser"),
    [
        ("notes.txt", b"text", "plain"),
        ("README", b"text", "plain"),
        ("Notes.MD", b"# Title", "markdown"),
        ("page.htm", b"<p>", "html"),
        ("page", b"\xef\xbb\xbf \n<!DOCTYPE html>", "html"),
        ("規程.pdf", b"%PDF-1.7\n", "pdf"),
        ("paper", b"junk before\n%PDF-1.4", "pdf"),
        ("notes.txt", "日本語".encode("utf-16"), "plain"),
        ("規程.DOCX", b"PK\x03\x04", "docx"),
        ("budget.xlsm", b"PK\x03\x04", "xlsx"),
        ("slides.pptx", b"PK\x03\x04", "pptx"),
        ("stock.tsv", b"a\tb", "csv"),
        ("log.ndjson", b"{}", "jsonl"),
    ],
)
def test_a_parser_is_chosen_by_name_and_content(filename: str, head: bytes, parser: str) -> None:
    assert parser_for(filename, head) == parser


@pytest.mark.parametrize(
    ("filename", "head", "reason"),
    [
        ("sheet.ods", b"PK\x03\x04", r"'sheet\.ods' is of a type that is not read; these are: \.txt, .*\.pdf"),
        ("sheet.xls", b"\xd0\xcf\x11\xe0", r"before 2007; save it as \.xlsx"),
        ("sheet.xlsx", b"\xd0\xcf\x11\xe0", "has a password or is of an Office before 2007"),
        ("slides.pptx", b"%PDF-1.7", "is not a PowerPoint presentation: it looks like a PDF"),
        ("fake.pdf", b"<html>", "is not a PDF"),
        ("fake.pdf", b"PK\x03\x04", "ZIP archive"),
        ("notes.txt", b"%PDF-1.7", r"rename it to \.pdf"),
        ("notes.txt", b"\x89PNG\r\n", "PNG image"),
        ("notes.md", b"a\0b", "NUL"),
        ("empty.txt", b"", "is empty"),
    ],
)
def test_what_is_not_read_is_refused_by_name(filename: str, head: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        parser_for(filename, head)


def test_every_row_of_the_table_can_be_loaded() -> None:
    assert all(callable(parsers.load(name)) for name in parsers)
    assert ".md" in known_suffixes()
