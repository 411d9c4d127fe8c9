"""Which format a file has, by its content first and its name where content can be several things; and who reads it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from terakoya.data.encodings import detect_encoding, name_binary
from terakoya.data.formats import ACCEPTED
from terakoya.data.readers.delimited import CSV_DELIMITERS, read_delimited, read_tab_separated
from terakoya.data.readers.json_lines import read_json_lines
from terakoya.data.readers.json_values import read_json_values
from terakoya.data.readers.parquet import SIGNATURE, read_parquet
from terakoya.data.readers.plain import read_plain
from terakoya.data.readers.rows import Rows
from terakoya.data.sources import Source
from terakoya.exceptions import InvalidDataset

READERS: Mapping[str, Callable[[Source, str], Rows]] = {
    "jsonl": read_json_lines,
    "json": read_json_values,
    "csv": read_delimited,
    "tsv": read_tab_separated,
    "text": read_plain,
}
BY_POSITION = frozenset({"json", "parquet"})
"""Formats whose rows are numbered by their position, not by line."""
_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
}
_SIGNATURE_BYTES = 4096
_HEAD_BYTES = 64 * 2**10
_JUDGED_LINES = 20
FORMATS_ADVICE = f"JSONL, JSON, CSV, TSV and Parquet are read, also with gzip; a row is one of {ACCEPTED}"


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file of a known format."""

    format: str
    encoding: str
    """A key of ENCODING_NAMES; "utf-8" for Parquet, whose texts are."""
    compression: str | None
    rows: Rows

    @property
    def numbers_lines(self) -> bool:
        return self.format not in BY_POSITION


def open_file(source: Source, *, filename: str | None, wanted: Collection[str], unpacked: BinaryIO) -> OpenedFile:
    """Find out the format. ``wanted``: the columns that matter; ``unpacked``: an empty file for what cannot be read
    from a stream.

    Raises: InvalidDataset naming what the file is if it is none of the formats.
    """
    head = source.head(_HEAD_BYTES)
    if head.startswith(SIGNATURE):
        return OpenedFile("parquet", "utf-8", source.compression, read_parquet(_seekable(source, unpacked), wanted))
    if (kind := name_binary(head[:_SIGNATURE_BYTES])) is not None:
        raise InvalidDataset(f"this is {kind}, which is not read; {FORMATS_ADVICE}")
    encoding = detect_encoding(source)
    format = _format_of(_decoded(head, encoding), filename)
    return OpenedFile(format, encoding, source.compression, READERS[format](source, encoding))


def _seekable(source: Source, unpacked: BinaryIO) -> BinaryIO:
    if source.compression is None:
        return source.path.open("rb")
    for chunk in source.chunks():
        unpacked.write(chunk)
    unpacked.seek(0)
    return unpacked


def _decoded(head: bytes, encoding: str) -> str:
    """Return the beginning as text; a character may be cut at its end."""
    return codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)


def _format_of(head: str, filename: str | None) -> str:
    named = _ENDINGS.get(Path((filename or "").lower().removesuffix(".gz")).suffix)
    start = head.lstrip()
    lines = [line for line in start.split("\n") if line.strip()][:_JUDGED_LINES]
    if named == "text" or not start:
        is_jsonl = bool(lines) and all(line.startswith("{") and _is_json(line) for line in lines)
        return "jsonl" if is_jsonl else named or "jsonl"
    if start.startswith("<"):
        raise InvalidDataset(f"this looks like HTML or XML, which is not read; {FORMATS_ADVICE}")
    if start.startswith("[") and named in (None, "jsonl"):
        return "json"
    if start.startswith("{"):
        return "json" if _spans_lines(lines) else "jsonl"
    if named is not None:
        return named
    if any(line.lstrip().startswith("{") for line in lines):
        return "jsonl"
    if any(delimiter in lines[0] for delimiter in CSV_DELIMITERS):
        return "csv"
    raise InvalidDataset(f"the format of the file is not recognised; it begins {lines[0][:40]!r}. {FORMATS_ADVICE}")


def _spans_lines(lines: list[str]) -> bool:
    """Whether a JSON value begins here that goes on beyond its line, as printers for people write it."""
    return len(lines) > 1 and not any(map(_is_json, lines[:2])) and lines[0].rstrip().endswith(("{", "[", ","))


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
