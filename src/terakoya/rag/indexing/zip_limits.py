"""What a ZIP archive says it holds, before a list of it is made. Knows nothing of what the entries are."""

from __future__ import annotations

import zipfile
from pathlib import Path

ALLOWED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways of packing whose memory does not depend on the archive."""
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_BYTES = 22 + 65_535
_ENTRY_BYTES = 512
"""More than an entry of the directory has on average, names of many letters included."""


def entries_beyond(path: Path, most: int) -> int | None:
    """Return how many entries there are at least if there are more than ``most``, by the archive's own count and the
    length of its directory; None else. Both may lie: whoever makes the list counts again.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - _END_BYTES))
        tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or len(tail) < at + 16:
        return None  # zipfile says what is wrong with it
    entries = int.from_bytes(tail[at + 10 : at + 12], "little")
    by_length = int.from_bytes(tail[at + 12 : at + 16], "little") // _ENTRY_BYTES
    found = max(entries, by_length)
    return found if found > most else None
