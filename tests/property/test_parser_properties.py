"""Of every parser: whatever a file holds, it is read or refused with a reason, its blocks and passages lie in its text
in order, they leave out nothing but white space, and the stored text from start to end is the quote.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from html import escape
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape as xml

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.rag.indexing.parsers.office_files import RELS, paragraph, word
from tests.unit.rag.indexing.parsers.pdf_writer import lines, pdf
from tests.unit.rag.indexing.tokenizer import small_tokenizer

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parse_result import read_result, write_result
from terakoya.rag.indexing.parsed_document import DocumentReader

TOKENIZER = small_tokenizer()
_WORDS = st.text(st.sampled_from("ab1 。、日本語ー|#*-<>&\"'\t,;:(（%円\u3000😀\u200b"), max_size=60)
_LONG = st.builds(lambda text, times: text * times, _WORDS, st.integers(1, 40))
_ROWS = st.lists(st.lists(_WORDS, min_size=1, max_size=5), min_size=1, max_size=30)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=20,
)
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _check(parser: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        try:
            document = DocumentReader(parser=parser, tokenizer=TOKENIZER).read(path, title=None, filename="file")
        except UnreadableDocument as error:
            if not str(error):
                raise
            return
        result = Path(folder, "result")
        with result.open("wb") as file:
            write_result(file, document)
        assert read_result(result) == document  # the parent checks offsets, order and what lies between
    position = 0
    for passage in document.passages:
        quote = document.text[passage.start : passage.end]
        assert quote
        assert quote == quote.strip()
        assert not document.text[position : passage.start].strip()
        position = passage.end
    assert not document.text[position:].strip()


@PROPERTY
@given(st.lists(_LONG, max_size=12), st.sampled_from(["plain", "markdown", "html"]))
def test_texts(pieces: list[str], parser: str) -> None:
    _check(parser, "\n\n".join(pieces).encode())


@PROPERTY
@given(st.lists(st.tuples(st.sampled_from(["h1", "h3", "p", "li", "td", "pre"]), _LONG), max_size=12))
def test_html(pieces: list[tuple[str, str]]) -> None:
    _check("html", "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in pieces).encode())


@PROPERTY
@given(_ROWS)
def test_csv(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    _check("csv", out.getvalue().encode())


@PROPERTY
@given(_VALUES)
def test_json(value: Any) -> None:
    _check("json", json.dumps(value, ensure_ascii=False).encode())
    _check("jsonl", (json.dumps(value) + "\n").encode() * 3)


def _package(main: str, content: str, **parts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("_rels/.rels", RELS.format(target=main))
        archive.writestr(main, content)
        for name, part in parts.items():
            archive.writestr(name.replace("__", "/"), part)
    return file.getvalue()


_STYLES = st.sampled_from(["", '<w:pPr><w:outlineLvl w:val="0"/></w:pPr>', '<w:pPr><w:outlineLvl w:val="2"/></w:pPr>'])


@PROPERTY
@given(st.lists(st.tuples(_LONG, _STYLES), max_size=12), _ROWS)
def test_word(paragraphs: list[tuple[str, str]], rows: list[list[str]]) -> None:
    body = "".join(paragraph(xml(text), style) for text, style in paragraphs)
    cells = "".join(f"<w:tr>{''.join(f'<w:tc>{paragraph(xml(cell))}</w:tc>' for cell in row)}</w:tr>" for row in rows)
    _check("docx", _package("word/document.xml", word(f"{body}<w:tbl>{cells}</w:tbl>{body}")))


@PROPERTY
@given(_ROWS)
def test_excel(rows: list[list[str]]) -> None:
    cell = '<c t="inlineStr"><is><t>{}</t></is></c>'
    cells = "".join(f"<row>{''.join(cell.format(xml(text)) for text in row)}</row>" for row in rows)
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    rels = f'<Relationships><Relationship Id="a" Target="s.xml" Type="{kind}/worksheet"/></Relationships>'
    book = f'<workbook xmlns:r="{kind}"><sheets><sheet name="S" r:id="a"/></sheets></workbook>'
    sheet = f"<worksheet><sheetData>{cells}</sheetData></worksheet>"
    _check("xlsx", _package("xl/workbook.xml", book, **{"xl/_rels/workbook.xml.rels": rels, "xl/s.xml": sheet}))


@PROPERTY
@given(st.lists(st.lists(_WORDS.map(lambda text: text.replace("😀", "")), max_size=8), min_size=1, max_size=4))
def test_pdf(pages: list[list[str]]) -> None:
    _check("pdf", pdf([lines(*page) for page in pages]))


@pytest.mark.parametrize("parser", ["plain", "html", "markdown", "csv", "json", "jsonl", "docx", "pptx", "xlsx", "pdf"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=300))
def test_bytes_that_are_no_document(parser: str, content: bytes) -> None:
    _check(parser, content)


@pytest.mark.parametrize("parser", ["docx", "xlsx", "pptx"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_an_office_file_with_a_damaged_byte(parser: str, at: int, value: int) -> None:
    whole = bytearray(_package("word/document.xml", word(paragraph("text") * 20)))
    whole[at % len(whole)] = value
    _check(parser, bytes(whole))
