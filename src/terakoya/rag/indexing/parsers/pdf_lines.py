"""The lines of a PDF's pages as PDFium sees them: their text, where they stand, how large they are set. Knows nothing
of paragraphs.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

_HYPHENS = (0x02, 0xFFFE)
"""What PDFium puts where a hyphen broke a word at the end of a line."""
_LEFT_OUT = (0x00, 0xAD)
_IMAGE_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Line:
    """In points, y upwards."""

    text: str
    left: float
    right: float
    top: float
    bottom: float
    size: float


def page_lines(page: pdfium.PdfPage) -> list[Line]:
    """Return the lines in the order the file has them."""
    text_page = page.get_textpage()
    try:
        return _lines(text_page.raw)
    finally:
        text_page.close()


def has_images(page: pdfium.PdfPage) -> bool:
    images = page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=_IMAGE_DEPTH)
    return next(iter(images), None) is not None


def _lines(handle: pdfium_c.FPDF_TEXTPAGE) -> list[Line]:
    lines: list[Line] = []
    characters: list[str] = []
    places: list[int] = []
    high = 0
    for index in range(pdfium_c.FPDFText_CountChars(handle)):
        code = pdfium_c.FPDFText_GetUnicode(handle, index)
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00) if high else 0xFFFD
        high = 0
        if code in (0x0A, 0x0D):
            _end_line(handle, characters, places, lines)
            characters, places = [], []
        elif code not in _HYPHENS and code not in _LEFT_OUT:
            characters.append(chr(code))
            places.append(index)
    _end_line(handle, characters, places, lines)
    return lines


def _end_line(handle: pdfium_c.FPDF_TEXTPAGE, characters: list[str], places: list[int], lines: list[Line]) -> None:
    text = "".join(characters)
    stripped = text.strip()
    if not stripped:
        return
    first = len(text) - len(text.lstrip())
    last = first + len(stripped) - 1
    boxes = [_box(handle, places[at]) for at in (first, (first + last) // 2, last)]
    lines.append(
        Line(
            stripped,
            left=boxes[0].left,
            right=boxes[2].right,
            top=max(box.top for box in boxes),
            bottom=min(box.bottom for box in boxes),
            size=max(box.top - box.bottom for box in boxes),
        )
    )


def _box(handle: pdfium_c.FPDF_TEXTPAGE, index: int) -> pdfium_c.FS_RECTF:
    box = pdfium_c.FS_RECTF()
    pdfium_c.FPDFText_GetLooseCharBox(handle, index, ctypes.byref(box))
    return box
