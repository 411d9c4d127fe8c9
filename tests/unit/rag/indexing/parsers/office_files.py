"""Office files for tests: written by the usual libraries, and by hand where those would not do it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

RELS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="{target}" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
    'relationships/officeDocument"/></Relationships>'
)
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def word(body: str) -> str:
    """Return a document part with this body."""
    return f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>'


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def package(path: Path, parts: Mapping[str, str | bytes], *, main: str = "word/document.xml") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", RELS.format(target=main))
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def entry_bomb(path: Path, entries: int = 100_000) -> Path:
    """Write a Word document with so many empty parts besides its text."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_rels/.rels", RELS.format(target="word/document.xml"))
        archive.writestr("word/document.xml", word(paragraph("text")))
        for number in range(entries):
            archive.writestr(f"word/media/{number}", b"")
    return path


def text_bomb(path: Path, *, mebibytes: int) -> Path:
    """Write a Word document whose text unpacks to that much."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", RELS.format(target="word/document.xml"))
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            part.write(f'<w:document xmlns:w="{_W}"><w:body><w:p><w:r><w:t>'.encode())
            for _ in range(mebibytes):
                part.write(b" " * (1 << 20))
            part.write(b"</w:t></w:r></w:p></w:body></w:document>")
    return path
