"""Bounds on what is sent: a running cap on bytes, and labels made of names that clients chose. Knows nothing of
requests or of files.
"""

from __future__ import annotations

import unicodedata

from terakoya.exceptions import TooLarge

LABEL_CHARACTERS = 120
MAX_ENDING = 10


class ByteCap:
    """Counts bytes as they arrive and refuses the one that is too many."""

    def __init__(self, limit_bytes: int, *, what: str) -> None:
        self._limit = limit_bytes
        self._what = what
        self.total = 0

    def expect(self, announced_bytes: int) -> None:
        """Refuse before the first byte when the announced length is too large. Raises: TooLarge."""
        if announced_bytes > self._limit:
            raise self._too_large(f"{announced_bytes:,} bytes were announced")

    def add(self, size_bytes: int) -> None:
        """Raises: TooLarge."""
        self.total += size_bytes
        if self.total > self._limit:
            raise self._too_large("more were sent")

    def _too_large(self, found: str) -> TooLarge:
        return TooLarge(f"{self._what} may hold {self._limit:,} bytes; {found}")


def safe_label(filename: str | None) -> str | None:
    """Return the last part of a client's file name as text to show, or None if nothing is left.

    It never becomes part of a path: stored files are named by the server.
    """
    if not filename:
        return None
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    # Control, format (bidirectional overrides), surrogate and private characters would only mislead a reader.
    printable = "".join(c for c in unicodedata.normalize("NFC", last) if unicodedata.category(c)[0] != "C")
    label = " ".join(printable.split()).strip(". ")
    if len(label) > LABEL_CHARACTERS:
        stem, dot, ending = label.rpartition(".")
        kept = f"{dot}{ending}" if stem and len(ending) <= MAX_ENDING else ""  # it says what the file is
        label = label[: LABEL_CHARACTERS - len(kept)] + kept
    return label or None
