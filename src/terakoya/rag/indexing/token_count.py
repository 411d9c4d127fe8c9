"""How many of the embedder's tokens any span of a text has, after one pass over it. Knows nothing of passages."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING

from terakoya.exceptions import RAGError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WINDOW = 2_000
"""Characters encoded at once: what a tokenizer spends may grow faster than the text."""
_SLACK = 200
"""How far back from a window's end a better place to end it is looked for."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a ``tokenizer.json``, without padding or truncation. Raises: RAGError if it is not one."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # it raises Exception itself
        raise RAGError(f"the embedder's tokenizer {path.name!r} cannot be opened: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class TokenCount:
    """Where the tokens of a text begin."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.starts: list[int] = []
        """Of each token, in order; several may begin at the same character."""
        last = start = 0
        while start < len(text):
            end = _window_end(text, start)
            for first, _ in tokenizer.encode(text[start:end], add_special_tokens=False).offsets:
                last = max(last, start + first)
                self.starts.append(last)
            start = end

    def between(self, start: int, end: int) -> int:
        return bisect_left(self.starts, end) - bisect_left(self.starts, start)

    def end_after(self, start: int, tokens: int, end: int) -> int:
        """Return where at most so many tokens from ``start`` end, never beyond ``end`` and always after ``start``."""
        index = bisect_left(self.starts, start) + tokens
        if index >= len(self.starts) or self.starts[index] >= end:
            return end
        return max(self.starts[index], start + 1)


def _window_end(text: str, start: int) -> int:
    end = start + _WINDOW
    if end >= len(text):
        return len(text)
    for mark in ("\n", " ", "。", "、"):
        found = text.rfind(mark, end - _SLACK, end)
        if found > start:
            return found if mark == " " else found + 1
    return end
