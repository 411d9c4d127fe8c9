"""A small writer of PDFs for tests: pages of lines in a standard font, in Japanese by a predefined CMap, or images."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    text: str
    x: float = 72
    y: float = 700
    size: float = 11


def lines(*texts: str, top: float = 700, size: float = 11, leading: float = 1.3) -> list[Text]:
    return [Text(text, y=top - index * size * leading, size=size) for index, text in enumerate(texts)]


def pdf(pages: Sequence[Sequence[Text]], *, title: str | None = None, image_pages: Sequence[int] = ()) -> bytes:
    objects = {1: b"<</Type/Catalog/Pages 2 0 R>>", 3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"}
    objects[4] = b"<</Type/Font/Subtype/Type0/BaseFont/HeiseiMin-W3/Encoding/UniJIS-UTF16-H/DescendantFonts[5 0 R]>>"
    objects[5] = (
        b"<</Type/Font/Subtype/CIDFontType0/BaseFont/HeiseiMin-W3/DW 1000"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Japan1)/Supplement 6>>/FontDescriptor 6 0 R>>"
    )
    objects[6] = (
        b"<</Type/FontDescriptor/FontName/HeiseiMin-W3/Flags 6/FontBBox[0 -200 1000 900]/ItalicAngle 0"
        b"/Ascent 880/Descent -120/CapHeight 700/StemV 80>>"
    )
    objects[7] = stream(
        b"\x80" * 16, "/Type/XObject/Subtype/Image/Width 4/Height 4/BitsPerComponent 8/ColorSpace/DeviceGray"
    )
    title_object = b"" if title is None else b"/Title<FEFF" + title.encode("utf-16-be").hex().encode() + b">"
    objects[8] = b"<<" + title_object + b">>"
    kids = []
    for number, texts in enumerate(pages):
        page, content = 10 + 2 * number, 11 + 2 * number
        drawn = "\n".join(map(_drawn, texts)) + (
            "\nq 200 0 0 200 72 400 cm /I Do Q" if number + 1 in image_pages else ""
        )
        objects[content] = stream(drawn.encode("latin-1"))
        objects[page] = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents {content} 0 R"
            "/Resources<</Font<</E 3 0 R/J 4 0 R>>/XObject<</I 7 0 R>>>>>>"
        ).encode()
        kids.append(f"{page} 0 R")
    objects[2] = f"<</Type/Pages/Kids[{' '.join(kids)}]/Count {len(kids)}>>".encode()
    return assemble(objects)


def stream(content: bytes, entries: str = "") -> bytes:
    packed = zlib.compress(content)
    return f"<<{entries}/Filter/FlateDecode/Length {len(packed)}>>stream\n".encode() + packed + b"\nendstream"


def decompression_bomb(*, gigabytes: int) -> bytes:
    """Return a small PDF whose one page's content is that large once unpacked."""
    packer = zlib.compressobj(9)
    block = b"BT /E 9 Tf (a) Tj ET\n" * 50_000
    packed = b"".join(packer.compress(block) for _ in range(gigabytes * 10**9 // len(block))) + packer.flush()
    return assemble(
        {
            1: b"<</Type/Catalog/Pages 2 0 R>>",
            2: b"<</Type/Pages/Kids[9 0 R]/Count 1>>",
            3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            9: b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 7 0 R/Resources<</Font<</E 3 0 R>>>>>>",
            7: f"<</Filter/FlateDecode/Length {len(packed)}>>stream\n".encode() + packed + b"\nendstream",
        }
    )


def assemble(objects: dict[int, bytes]) -> bytes:
    out = bytearray(b"%PDF-1.7\n")
    places = {}
    for number, content in sorted(objects.items()):
        places[number] = len(out)
        out += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 1\n0000000000 65535 f \n"
    for number, place in places.items():
        out += f"{number} 1\n{place:010} 00000 n \n".encode()
    info = "/Info 8 0 R" if 8 in objects else ""
    out += f"trailer<</Size {max(objects) + 1}/Root 1 0 R{info}>>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(out)


def _drawn(text: Text) -> str:
    if text.text.isascii():
        escaped = text.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        shown, font = f"({escaped})", "E"
    else:
        shown, font = f"<{text.text.encode('utf-16-be').hex()}>", "J"
    return f"BT /{font} {text.size} Tf {text.x} {text.y:.2f} Td {shown} Tj ET"
