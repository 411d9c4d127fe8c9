"""Bytes to lines of text: what kind of file this is, which encoding it is in, where its lines end. Everything is
decoded strictly and in a stream. Knows nothing of JSON or of training examples.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from terakoya.data.problems import Problem
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

LINE_LIMIT_BYTES = 4 * 2**20
_SAMPLE_BYTES = 256 * 2**10
_BOUNDARY = re.compile(rb'[\n",]')
"""Bytes that no encoding uses inside a character."""

SIGNATURES = (
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"PK\x03\x04", "a ZIP archive (or an .xlsx, .docx or .pt file, which are ZIP archives)"),
    (b"\xd0\xcf\x11\xe0", "an old Microsoft Office file"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"SQLite format 3", "an SQLite database"),
    (b"GGUF", "a GGUF model"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x93NUMPY", "a NumPy array"),
)
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

ENCODING_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with a byte order mark",
    "utf-16": "UTF-16",
    "cp932": "CP932 (Shift_JIS as Windows writes it)",
    "euc_jp": "EUC-JP",
}
"""Python's codec name -> what a person calls it. These are the encodings that are read."""


def name_binary(head: bytes) -> str | None:
    """Return what the first bytes look like if they are not text, else None."""
    for signature, name in SIGNATURES:
        if head.startswith(signature):
            return name
    if b"\0" in head and not head.startswith(UTF16_MARKS):
        return "binary data (it holds NUL bytes)"
    return None


def detect_encoding(source: Source) -> str:
    """Return a key of ENCODING_NAMES, judged by the first 256 KiB of pieces that are not plain ASCII.

    UTF-8 is taken if most of those pieces are valid in it, so that one damaged line is reported as what it is;
    EUC-JP and CP932 only if the text they give has kana, because many other encodings decode by accident; CP932 also
    if it is everyday kanji (labels, names), whose bytes no other encoding of these languages uses in that order.
    Raises: InvalidDataset when it is none of them, with the likely encoding.
    """
    head = source.head(4)
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith(UTF16_MARKS):
        return "utf-16"
    pieces = _sample(source.chunks())
    valid = sum(_decodes(piece, "utf-8") for piece in pieces)
    if 2 * valid >= len(pieces):
        return "utf-8"
    sample = b"\n".join(pieces)
    for encoding in ("euc_jp", "cp932"):
        if all(_decodes(piece, encoding) for piece in pieces):
            text = sample.decode(encoding, errors="ignore")
            if _looks_japanese(text) or (encoding == "cp932" and _is_everyday_kanji(text)):
                return encoding
    raise InvalidDataset(
        f"the text is not UTF-8, CP932 or EUC-JP{_likely_encoding(sample)}; save it as UTF-8 "
        f"(`iconv -f ENCODING -t UTF-8 rows.jsonl > utf8.jsonl`){_first_damage(source)}"
    )


def read_lines(source: Source, encoding: str) -> Iterator[tuple[int, str | Problem]]:
    """Yield (number from 1, text) of each line, or why it cannot be read: it does not decode, or is longer than
    LINE_LIMIT_BYTES.
    """
    codec = "utf-8" if encoding in ("utf-8-sig", "utf-16") else encoding
    for number, line in enumerate(_split_lines(_encoded_chunks(source, encoding)), start=1):
        if line is None:
            yield number, Problem("line_too_long", {"limit": LINE_LIMIT_BYTES // 2**20})
            continue
        try:
            yield number, line.decode(codec)
        except UnicodeDecodeError as error:
            values = {"encoding": ENCODING_NAMES[encoding], "byte": f"{line[error.start]:02x}"}
            yield number, Problem("bad_encoding", values | {"position": error.start + 1})


def read_text(source: Source, encoding: str) -> Iterator[str]:
    """Yield the text in pieces. A byte that does not decode stays as the surrogate that stands for it (PEP 383).

    Raises: InvalidDataset for damaged UTF-16, after which nothing is certain.
    """
    codec = "utf-8" if encoding in ("utf-8-sig", "utf-16") else encoding
    yield from codecs.iterdecode(_encoded_chunks(source, encoding), codec, errors="surrogateescape")


def _encoded_chunks(source: Source, encoding: str) -> Iterator[bytes]:
    """Yield the file in pieces in which a newline is the byte 0x0A: as it is, or UTF-16 turned into UTF-8."""
    chunks = source.chunks()
    if encoding == "utf-8-sig":
        start = b""
        while len(start) < len(codecs.BOM_UTF8):  # an archive may come in pieces of a byte
            start += next(chunks)
        yield start.removeprefix(codecs.BOM_UTF8)
    if encoding != "utf-16":
        yield from chunks
        return
    try:
        for text in codecs.iterdecode(chunks, "utf-16"):
            yield text.encode()
    except UnicodeDecodeError as error:
        raise InvalidDataset(f"the file starts as UTF-16 but is not valid UTF-16 ({error.reason})") from error


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield each line, None for one that is longer than LINE_LIMIT_BYTES, which is passed over unseen."""
    rest = b""
    passing = False
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        if passing:
            if not others:
                continue
            passing = False
        else:
            rest += first
            if not others and len(rest) <= LINE_LIMIT_BYTES:
                continue
            yield rest if len(rest) <= LINE_LIMIT_BYTES else None
            if not others:
                rest, passing = b"", True
                continue
        *whole, rest = others
        yield from whole
    if rest:
        yield rest


def _sample(chunks: Iterator[bytes]) -> list[bytes]:
    """Return pieces that are not plain ASCII, cut where no encoding has the middle of a character. A piece without
    such a place is kept as far as it is sampled.
    """
    pieces: list[bytes] = []
    size = 0
    rest = b""
    for chunk in chunks:
        if rest.isascii() and chunk.isascii():
            rest = b""
            continue
        *whole, rest = _BOUNDARY.split(rest[:_SAMPLE_BYTES] + chunk)
        for piece in whole:
            if not piece.isascii():
                pieces.append(piece[:_SAMPLE_BYTES])
                size += len(piece)
                if size >= _SAMPLE_BYTES:
                    return pieces
        if len(rest) >= _SAMPLE_BYTES:
            break
    return pieces if rest.isascii() else [*pieces, rest[:_SAMPLE_BYTES]]


def _decodes(piece: bytes, encoding: str) -> bool:
    """Whether it decodes; only a whole character may be missing its end, where the sample was cut."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(piece, final=len(piece) < _SAMPLE_BYTES)
    except UnicodeDecodeError:
        return False
    return True


def _looks_japanese(text: str) -> bool:
    """Whether the text has kana and no private-use characters, which accidents of decoding give."""
    foreign = [character for character in text if not character.isascii()]
    if any("\ue000" <= character <= "\uf8ff" for character in foreign):
        return False
    kana = sum("\u3040" <= character <= "\u30ff" for character in foreign)
    half_width_kana = sum("\uff66" <= character <= "\uff9f" for character in foreign)
    return kana >= 0.05 * len(foreign) or half_width_kana >= 0.5 * len(foreign)


def _is_everyday_kanji(text: str) -> bool:
    """Whether nearly all that is not ASCII is of JIS level 1, which CP932 writes with lead bytes 0x88 to 0x98."""
    foreign = [character for character in text if not character.isascii()]
    level_1 = sum(0x88 <= character.encode("cp932", errors="replace")[0] <= 0x98 for character in foreign)
    return level_1 >= 0.8 * len(foreign)


def _first_damage(source: Source) -> str:
    """Return where the text first is not UTF-8, for a file that is ASCII but for a few damaged places."""
    for number, line in read_lines(source, "utf-8"):
        if isinstance(line, Problem) and line.code == "bad_encoding":
            return f". The first damaged place: line {number} is {line.reason}"
    return ""


def _likely_encoding(sample: bytes) -> str:
    from charset_normalizer import from_bytes  # needed only for this message

    best = from_bytes(sample[: 64 * 2**10]).best()
    return f" (it looks like {best.encoding})" if best is not None else ""
