"""How the list of an archive's entries gets from the child to its parent, who checks it before a byte is used."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, get_args

from terakoya.exceptions import InvalidConfig
from terakoya.rag.indexing.archives import MAX_ENTRIES, Entry, Outcome
from terakoya.rag.indexing.parse_result import Contradiction, child_error
from terakoya.rag.sources import check_source

_MAX_LINE = 16 << 10


class Unpacked:
    """What came out of an archive; its files are there as long as its context is open."""

    def __init__(self, entries: tuple[Entry, ...], contents: Path) -> None:
        self.entries = entries
        self._contents = contents

    def copy(self, entry: Entry, target: Path) -> None:
        """Write a document's bytes to a new file."""
        with self._contents.open("rb") as source, target.open("xb") as file:
            source.seek(entry.start)
            left = entry.size
            while left:
                chunk = source.read(min(left, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined]
                if not chunk:
                    raise Contradiction("its contents are cut off")
                file.write(chunk)
                left -= len(chunk)


def write_entry(file: BinaryIO, entry: Entry) -> None:
    file.write(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")


def read_entries(path: Path, contents: Path) -> Unpacked:
    """Raises: the child's own error; Contradiction."""
    size = contents.stat().st_size
    entries: list[Entry] = []
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Contradiction("it is not JSON") from error
            if isinstance(value, dict) and "error" in value:
                raise child_error(value)
            entries.append(_entry(value, size))
            if len(entries) > MAX_ENTRIES:
                raise Contradiction("it has too many entries")
    return Unpacked(tuple(entries), contents)


def _entry(value: Any, contents_bytes: int) -> Entry:
    try:
        entry = Entry(**value)
        if entry.name != check_source(entry.name) or entry.outcome not in get_args(Outcome):
            raise Contradiction("an entry's name or outcome cannot be right")
        numbers = (entry.start, entry.size)
        if any(type(number) is not int or number < 0 for number in numbers) or sum(numbers) > contents_bytes:
            raise Contradiction("an entry's place cannot be right")
        if entry.outcome == "document" and len(bytes.fromhex(entry.sha256)) != 32:
            raise Contradiction("an entry's hash cannot be right")
    except (TypeError, ValueError, AttributeError, InvalidConfig) as error:
        raise Contradiction("an entry cannot be right") from error
    return entry
