"""A document as it is stored and indexed, and how it is made from a file: parsed, cut, analysed. All of it runs in
the child process; the web process sees the result alone.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from terakoya.domain.documents import Language, Terms
from terakoya.rag.indexing.chunker import Chunk, chunk
from terakoya.rag.indexing.parsers import parsers
from terakoya.rag.indexing.parsers.parsed import Parsed, check_length, check_not_empty
from terakoya.rag.indexing.passage_text import indexed_text
from terakoya.rag.indexing.token_count import TokenCount
from terakoya.rag.retrieval.analysis import language_of, terms_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    start: int
    end: int
    page: int | None
    """Of its first character, from 1."""
    heading: tuple[str, ...]
    terms: Terms
    """Of title, headings and text."""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    title: str | None
    """As the document itself has it."""
    text: str
    language: Language
    pages: int | None
    notices: tuple[str, ...]
    passages: tuple[ParsedPassage, ...]


def open_dictionary() -> None:
    """Load what the analysis of text needs, which otherwise happens with the first text."""
    terms_of("辞書 dictionary")


class DocumentReader:
    """Holds what a file is read with: opened before the process is confined."""

    def __init__(self, *, parser: str, tokenizer: Tokenizer) -> None:
        """Raises: InvalidConfig for an unknown parser."""
        self._parse = parsers.load(parser)
        self._tokenizer = tokenizer

    def read(self, path: Path, *, title: str | None, filename: str) -> ParsedDocument:
        """``title``: given by a person, else the document's own or its file name is indexed with every passage.

        Raises: UnreadableDocument.
        """
        parsed = self._parse(path)
        check_length(len(parsed.text))
        check_not_empty(parsed)
        chunks = chunk(parsed, TokenCount(parsed.text, self._tokenizer))
        indexed_as = title or parsed.title or PurePath(filename).stem
        return ParsedDocument(
            title=parsed.title,
            text=parsed.text,
            language=language_of(parsed.text),
            pages=None if parsed.page_starts is None else len(parsed.page_starts),
            notices=parsed.notices,
            passages=tuple(_passage(parsed, piece, indexed_as) for piece in chunks),
        )


def _passage(parsed: Parsed, piece: Chunk, title: str) -> ParsedPassage:
    text = parsed.text[piece.start : piece.end]
    page = None if parsed.page_starts is None else max(1, bisect_right(parsed.page_starts, piece.start))
    return ParsedPassage(
        piece.start, piece.end, page, piece.heading, terms_of(indexed_text(title, piece.heading, text))
    )
