"""A text file's bytes to text: by its byte order mark, what it declares, or what it looks like. What had to be
converted or could not be read becomes a notice. Knows nothing of what the text is.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from terakoya.data.encodings import ENCODING_NAMES, UTF16_MARKS, detect_encoding, name_binary
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset, UnreadableDocument

_HEAD = 4096
_MAX_DAMAGED = 0.01
"""Share of bytes that may be damaged before a file counts as unreadable."""
_MAX_CONTROLS = 0.02
_CONTROLS = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]")


@dataclass(frozen=True, slots=True)
class Decoded:
    text: str
    notices: tuple[str, ...]


def decode_file(path: Path, *, declared: str | None = None) -> Decoded:
    """Return the file's text with line ends as \\n and without NULs. ``declared``: the codec it says it is in.

    Raises: UnreadableDocument if it is binary, empty or in an encoding that is not read.
    """
    content = path.read_bytes()
    binary = name_binary(content[:_HEAD])
    if binary is not None:
        raise UnreadableDocument(f"the file is not text but {binary}")
    encoding = _encoding_of(path, content, declared)
    notices: list[str] = []
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        text = _decode_damaged(content, encoding, error, notices)
    del content
    name = _name(encoding)
    if encoding not in ("utf-8", "utf-8-sig"):
        notices.insert(0, f"converted from {name}")
    if "\0" in text:
        notices.append(f"{text.count(chr(0)):,} NUL characters were removed")
        text = text.replace("\0", "")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if sum(1 for _ in _CONTROLS.finditer(text)) > _MAX_CONTROLS * len(text):
        raise UnreadableDocument("the file is not text but binary data (it is full of control characters)")
    return Decoded(text, tuple(notices))


def _encoding_of(path: Path, content: bytes, declared: str | None) -> str:
    if content.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if content.startswith(UTF16_MARKS):
        return "utf-16"
    if declared is not None and declared != "utf-8":
        return declared
    if _ISO_2022_JP.search(content) and content.isascii():
        return "iso-2022-jp"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        return "utf-8"
    try:
        return detect_encoding(Source(path))
    except InvalidDataset as error:
        likely = _likely(content)
        raise UnreadableDocument(
            f"the text is not UTF-8, UTF-16, CP932, EUC-JP or ISO-2022-JP{likely}; save it as UTF-8"
        ) from error


def _decode_damaged(content: bytes, encoding: str, error: UnicodeDecodeError, notices: list[str]) -> str:
    text = content.decode(encoding, errors="replace")
    damaged = text.count("\ufffd")
    name = _name(encoding)
    if damaged > max(1, _MAX_DAMAGED * len(content)):
        raise UnreadableDocument(
            f"the text is not valid {name}: {damaged:,} places cannot be read, the first at byte {error.start:,}; "
            "save it as UTF-8"
        ) from error
    notices.append(f"{damaged:,} places were not valid {name} and read \ufffd now")
    return text


def _name(encoding: str) -> str:
    return ENCODING_NAMES.get(encoding, encoding.replace("_", "-").upper())


def _likely(content: bytes) -> str:
    from charset_normalizer import from_bytes  # needed only for this message

    best = from_bytes(content[: 64 * 2**10]).best()
    return f" (it looks like {best.encoding})" if best is not None else ""
