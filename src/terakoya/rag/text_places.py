"""Texts as quotes of them are looked for: without white space, width and case, each character knowing its place."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize


def squeeze(text: str) -> tuple[str, Sequence[int]]:
    """Return the text as passages are compared, and of each of its characters the place it came from."""
    parts: list[str] = []
    origin: list[int] = []
    for place, character in enumerate(text):
        if not character.isspace():
            plain = normalize("NFKC", character).casefold()
            parts.append(plain)
            origin += [place] * len(plain)
    return "".join(parts), origin
