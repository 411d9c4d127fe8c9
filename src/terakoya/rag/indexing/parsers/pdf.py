"""PDF to text, page by page, by PDFium. What has no text layer is said, not guessed: nothing is recognised from
images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pypdfium2 as pdfium

from terakoya.exceptions import UnreadableDocument
from terakoya.rag.indexing.parsers.parsed import Parsed, TextWriter, check_length, check_not_empty, clean_title
from terakoya.rag.indexing.parsers.pdf_layout import without_repeats, write_pages
from terakoya.rag.indexing.parsers.pdf_lines import Line, has_images, page_lines

MAX_PAGES = 10_000
_MAX_GARBLED = 0.3
_GARBLED = re.compile("[\x01-\x08\x0e-\x1f\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]")
_NO_TITLE = re.compile(
    r"(?i)\A(?:untitled|無題|no ?title|document\d*|文書\d*|microsoft (?:word|powerpoint|excel) - .*|.*\.\w{2,5})\Z"
)


def parse(path: Path) -> Parsed:
    document = _open(path)
    try:
        return _parse(document)
    except pdfium.PdfiumError as error:
        raise UnreadableDocument(f"the PDF is damaged: {error}") from error
    finally:
        document.close()


def _open(path: Path) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableDocument(
                "the PDF is password protected; save a copy without the password and add that"
            ) from error
        raise UnreadableDocument(f"the PDF is damaged or cut off, or no PDF at all: {error}") from error


def _parse(document: pdfium.PdfDocument) -> Parsed:
    pages: list[list[Line]] = []
    images: list[int] = []
    damaged: list[int] = []
    characters = 0
    if len(document) > MAX_PAGES:
        raise UnreadableDocument(f"the PDF has {len(document):,} pages; at most {MAX_PAGES:,} are read: split it")
    for number in range(1, len(document) + 1):
        lines: list[Line] = []
        try:
            page = document[number - 1]
        except pdfium.PdfiumError:
            damaged.append(number)
        else:
            lines = page_lines(page)
            if not lines and has_images(page):
                images.append(number)
            page.close()
        pages.append(lines)
        characters += sum(len(line.text) for line in lines)
        check_length(characters)
    _check_text(pages, images, damaged, characters)
    kept, repeats = without_repeats(pages)
    out = TextWriter()
    starts = write_pages(kept, out)
    notices = [
        *([f"pages that are images without a text layer, left out: {_numbers(images)}"] if images else []),
        *([f"pages that are damaged, left out: {_numbers(damaged)}"] if damaged else []),
        *([f"{repeats:,} headers and footers that repeat were left out"] if repeats else []),
    ]
    return check_not_empty(Parsed(out.text(), _title(document), out.blocks, starts, tuple(notices)))


def _check_text(pages: Sequence[Sequence[Line]], images: list[int], damaged: list[int], characters: int) -> None:
    if not pages:
        raise UnreadableDocument("the PDF has no pages")
    if len(damaged) == len(pages):
        raise UnreadableDocument(f"the PDF is damaged: none of its {len(pages):,} pages can be opened")
    if characters == 0 and images:
        raise UnreadableDocument(
            f"the PDF has no text layer; {len(images):,} of its {len(pages):,} pages are images, as scans are. "
            "Run text recognition (OCR) on it and add the result"
        )
    if characters == 0:
        raise UnreadableDocument(f"the PDF holds no text on its {len(pages):,} pages")
    garbled = sum(len(_GARBLED.findall(line.text)) for lines in pages for line in lines)
    if garbled > _MAX_GARBLED * characters:
        raise UnreadableDocument(
            f"the PDF's text layer is garbled ({garbled:,} of {characters:,} characters mean nothing); "
            "run text recognition (OCR) on it and add the result"
        )


def _title(document: pdfium.PdfDocument) -> str | None:
    title = clean_title(document.get_metadata_value("Title"))
    return None if title is None or _NO_TITLE.match(title) or _GARBLED.search(title) else title


def _numbers(numbers: Sequence[int]) -> str:
    """1-3, 7: runs together, and no more than ten of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    said = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:10]]
    return ", ".join(said) + (" and more" if len(runs) > 10 else "")
