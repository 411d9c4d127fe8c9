"""What a passage is embedded and indexed as: itself under its document's title and the headings above it."""

from __future__ import annotations

from collections.abc import Sequence


def indexed_text(title: str, heading: Sequence[str], text: str) -> str:
    return "\n".join((title, *heading, text))
