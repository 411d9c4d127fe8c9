from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.rag.indexing.parsers.pdf_writer import Text, lines, pdf

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.parsed import Parsed
from terakoya.rag.indexing.parsers.pdf import parse

FULL = "This line is long enough to reach the right margin of the page, as all lines but the last"


def _parse(tmp_path: Path, content: bytes) -> Parsed:
    path = tmp_path / "file.pdf"
    path.write_bytes(content)
    return parse(path)


def _blocks(document: Parsed) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, document.text[block.start : block.end]) for block in document.blocks]


def test_lines_become_paragraphs_and_larger_type_headings(tmp_path: Path) -> None:
    page = [
        Text("User guide", y=780, size=24),
        Text("Returns", y=730, size=16),
        *lines(FULL, FULL, "ends here.", "Another paragraph begins.", top=700),
        *lines("- an item", "- another item", top=600),
    ]
    document = _parse(tmp_path, pdf([page], title="The guide"))
    assert document.title == "The guide"
    assert _blocks(document) == [
        ("heading", 1, "User guide"),
        ("heading", 2, "Returns"),
        ("paragraph", 0, f"{FULL} {FULL} ends here."),
        ("paragraph", 0, "Another paragraph begins."),
        ("list", 0, "- an item"),
        ("list", 0, "- another item"),
    ]


def test_japanese_lines_are_joined_without_a_space(tmp_path: Path) -> None:
    text = "商品は到着した日から三十日以内であれば理由を問わず返品することができますので御連絡"
    document = _parse(tmp_path, pdf([lines(text, "ください。送料は当店が負担します。")]))
    assert document.text == f"{text}ください。送料は当店が負担します。"


def test_each_page_begins_where_its_text_does(tmp_path: Path) -> None:
    document = _parse(tmp_path, pdf([lines("First page."), [], lines("Third page.")]))
    assert document.page_starts is not None
    assert len(document.page_starts) == 3
    assert document.text[document.page_starts[2] :] == "Third page."


def test_a_paragraph_goes_on_over_the_page(tmp_path: Path) -> None:
    document = _parse(tmp_path, pdf([lines(FULL, FULL), lines("goes on here.")]))
    assert document.text == f"{FULL} {FULL} goes on here."
    assert document.page_starts is not None
    assert document.text[document.page_starts[1] :] == "goes on here."


def test_headers_and_footers_that_repeat_are_left_out_and_said(tmp_path: Path) -> None:
    pages = [
        [Text("Staff handbook", y=800), Text(f"Chapter text of {word}.", y=600), Text(f"Page {number}", y=40)]
        for number, word in enumerate(["one", "two", "three", "four"], start=1)
    ]
    document = _parse(tmp_path, pdf(pages))
    assert "handbook" not in document.text
    assert "Page" not in document.text
    assert document.notices == ("8 headers and footers that repeat were left out",)


def test_a_scan_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="no text layer; 2 of its 3 pages are images"):
        _parse(tmp_path, pdf([[], [], []], image_pages=[1, 3]))


def test_pages_that_are_images_among_others_are_named(tmp_path: Path) -> None:
    document = _parse(tmp_path, pdf([lines("Text."), [], [], lines("More.")], image_pages=[2, 3]))
    assert document.notices == ("pages that are images without a text layer, left out: 2-3",)


@pytest.mark.parametrize("title", ["", "Microsoft Word - 規程.doc", "untitled", "report.docx", "\x01\x02"])
def test_a_title_that_names_nothing_is_not_taken(tmp_path: Path, title: str) -> None:
    assert _parse(tmp_path, pdf([lines("Text.")], title=title)).title is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%PDF-1.7\nnothing", "damaged or cut off"),
        (pdf([lines("Text.")])[:300], "damaged|cut off"),
        (b"no pdf", "damaged or cut off"),
        (pdf([]), "no pages|damaged"),
        (pdf([[]]), "no text on its 1 pages"),
        (pdf([lines("\ue001\ue002\ue003\ue004")]), "garbled|no text"),
    ],
)
def test_a_pdf_that_yields_no_text_is_refused_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        _parse(tmp_path, content)


def _public(name: str) -> Path:
    folder = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(folder or "", "pdf", name)
    if folder is None or not path.exists():
        pytest.skip(f"TERAKOYA_BENCH_DATA holds no pdf/{name}")
    return path


@pytest.mark.parametrize(
    ("name", "pages", "holds"),
    [
        ("002-trivial-libre-office-writer.pdf", 1, "elitr, sed diam nonumy eirmod tempor invidunt ut labore"),
        ("google-doc-document.pdf", 1, "Beautiful is better than ugly."),
        ("multicolumn.pdf", 3, "adipiscing elit. Ut purus elit, vestibulum ut, placerat ac,"),
        ("pdflatex-4-pages.pdf", 4, "what a printed text will look like at this place"),
        ("pdflatex-outline.pdf", 4, "1 Foo"),
    ],
)
def test_public_files_are_read(name: str, pages: int, holds: str) -> None:
    document = parse(_public(name))
    assert holds in document.text
    assert len(document.page_starts or ()) == pages


def test_a_public_file_with_a_password_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="password protected"):
        parse(_public("libreoffice-writer-password.pdf"))


def test_images_of_a_public_file_are_named() -> None:
    assert parse(_public("imagemagick-images.pdf")).notices == (
        "pages that are images without a text layer, left out: 4-5",
    )
