"""Bytes to lines of text: what kind of file this is, which encoding it is in, where its lines end. Everything is
decoded strictly and in a stream. Knows nothing of JSON or of training examples.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from terakoya.exceptions import InvalidDataset

LINE_LIMIT_BYTES = 4 * 2**20
_CHUNK_BYTES = 2**20
_SAMPLE_BYTES = 256 * 2**10

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


def detect_encoding(path: Path) -> str:
    """Return a key of ENCODING_NAMES, judged by the first 256 KiB of lines that are not plain ASCII.

    UTF-8 is taken if most of those lines are valid in it, so that one damaged line is reported as what it is;
    EUC-JP and CP932 only if the text they give has kana, because many other encodings decode by accident; CP932 also
    if it is everyday kanji (labels, names), whose bytes no other encoding of these languages uses in that order.
    Raises: InvalidDataset when it is none of them, with the likely encoding.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith(UTF16_MARKS):
        return "utf-16"
    lines = _sample(path)
    valid = sum(_decodes(line, "utf-8") for line in lines)
    if 2 * valid >= len(lines):
        return "utf-8"
    sample = b"\n".join(lines)
    for encoding in ("euc_jp", "cp932"):
        if _decodes(sample, encoding):
            text = sample.decode(encoding)
            if _looks_japanese(text) or (encoding == "cp932" and _is_everyday_kanji(text)):
                return encoding
    raise InvalidDataset(
        f"the text is not UTF-8, CP932 or EUC-JP{_likely_encoding(sample)}; save it as UTF-8 "
        "(`iconv -f ENCODING -t UTF-8 rows.jsonl > utf8.jsonl`)"
    )


def read_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of each line.

    Raises: InvalidDataset with the number of a line that does not decode or is longer than LINE_LIMIT_BYTES.
    """
    codec = "utf-8" if encoding in ("utf-8-sig", "utf-16") else encoding
    for number, line in enumerate(_split_lines(_chunks(path, encoding)), start=1):
        try:
            yield number, line.decode(codec)
        except UnicodeDecodeError as error:
            raise InvalidDataset(
                f"line {number} is not valid {ENCODING_NAMES[encoding]}: byte 0x{line[error.start]:02x} at position "
                f"{error.start + 1} of the line; save the whole file as UTF-8"
            ) from error


def _chunks(path: Path, encoding: str) -> Iterator[bytes]:
    """Yield the file in pieces in which a newline is the byte 0x0A: as it is, or UTF-16 turned into UTF-8."""
    with path.open("rb") as file:
        if encoding == "utf-8-sig":
            file.seek(len(codecs.BOM_UTF8))
        pieces = iter(lambda: file.read(_CHUNK_BYTES), b"")
        if encoding != "utf-16":
            yield from pieces
            return
        try:
            for text in codecs.iterdecode(pieces, "utf-16"):
                yield text.encode()
        except UnicodeDecodeError as error:
            raise InvalidDataset(f"the file starts as UTF-16 but is not valid UTF-16 ({error.reason})") from error


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    count = 0
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            count += 1
            yield _within_limit(line, count)
        _within_limit(rest, count + 1)
    if rest:
        yield rest


def _within_limit(line: bytes, number: int) -> bytes:
    if len(line) > LINE_LIMIT_BYTES:
        raise InvalidDataset(
            f"line {number} is longer than {LINE_LIMIT_BYTES // 2**20} MiB, the most one row may have; "
            "is this JSONL, one object on each line?"
        )
    return line


def _sample(path: Path) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    for line in _split_lines(_chunks(path, "utf-8")):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size >= _SAMPLE_BYTES:
                break
    return lines


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
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


def _likely_encoding(sample: bytes) -> str:
    from charset_normalizer import from_bytes  # needed only for this message

    best = from_bytes(sample[: 64 * 2**10]).best()
    return f" (it looks like {best.encoding})" if best is not None else ""
