"""From text to the terms of the lexical index, Japanese and English mixed as they come; and a text's language.

The same function analyses passages and queries: what it finds in one it finds in the other. Terms are hashed, so no
vocabulary is kept; it knows nothing of weights or of where terms are stored.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from terakoya.domain.documents import Language, Terms
from terakoya.rag.retrieval.words import STOP_WORDS, UNSPACED, words

if TYPE_CHECKING:
    from sudachipy import Dictionary, Tokenizer

_SLICE = 12_000
"""Characters a call of the tokenizer, which takes 49,149 bytes of UTF-8."""
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
_JAPANESE = re.compile(r"[\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
"""Halves of characters, which have no UTF-8."""
_HIRAGANA = re.compile(r"[\u3041-\u3096]")
_LOWERCASE = re.compile(r"[a-z]")
_HIRAGANA_PAIR = re.compile(r"[\u3041-\u3096]{2}")
_NOUNS = frozenset(("名詞", "接頭辞", "接尾辞"))
_KEY_WORD = re.compile(r"(?=.*\w)[\w.'\u2019+-]{2,}|\d+")
_NOT_CONTENT = frozenset(("助詞", "助動詞", "代名詞", "補助記号", "記号", "空白"))
"""Parts of speech that say nothing of the matter: particles, auxiliaries, pronouns (with "what" and "where"), signs."""


def terms_of(text: str) -> Terms:
    """Return the terms of ``text`` and how often each occurs; thread-safe.

    Words by morphology (Sudachi's shortest units in their normalised form, without particles and pronouns) or stem
    (Snowball), character 1- and 2-grams of scripts without spaces, numbers with and without units, model numbers.
    """
    normal = unicodedata.normalize("NFKC", _SURROGATES.sub(" ", text)).casefold()
    return dict(Counter(map(_term_id, _terms(normal))))


def key_words(text: str) -> tuple[str, ...]:
    """Return what a text is about as it writes it, in order, each once: Japanese nouns with their neighbours as one
    word, other words that are no stop words, numbers.
    """
    found: dict[str, str] = {}
    for run in _runs(unicodedata.normalize("NFKC", _SURROGATES.sub(" ", text))):
        found.setdefault(run.casefold(), run)
    return tuple(found.values())


def language_of(text: str) -> Language:
    """Return the language by its script: where it quotes a little of another, that does not count.

    Capitals are left out, as Japanese is full of names like "GPU"; without hiragana it takes more to be Japanese.
    """
    normal = unicodedata.normalize("NFKC", text)
    japanese = sum(1 for _ in _JAPANESE.finditer(normal))
    weight = 2 if _HIRAGANA.search(normal) else 1
    latin = sum(1 for _ in _LOWERCASE.finditer(normal))
    return Language.JAPANESE if weight * japanese > latin else Language.ENGLISH


def _terms(text: str) -> Iterator[str]:
    yield from words(text, _tools().stem)
    for line in _unspaced_lines(text):
        for morpheme in _tools().tokenizer.tokenize(line):
            if _is_content(morpheme.part_of_speech()) and _UNSPACED_RUN.search(morpheme.surface()):
                yield morpheme.normalized_form()
    for run in _UNSPACED_RUN.findall(text):
        yield from _grams(run)


def _runs(text: str) -> Iterator[str]:
    """Yield nouns that follow each other as one, and words of other scripts."""
    for line in text.splitlines():
        run = ""
        for start in range(0, len(line), _SLICE):
            for morpheme in _tools().tokenizer.tokenize(line[start : start + _SLICE]):
                surface = morpheme.surface()
                if _UNSPACED_RUN.search(surface) and morpheme.part_of_speech()[0] in _NOUNS:
                    run += surface
                    continue
                if len(run) > 1:
                    yield run
                run = ""
                if _KEY_WORD.fullmatch(surface) and surface.casefold() not in STOP_WORDS:
                    yield surface
        if len(run) > 1:
            yield run


def _is_content(part_of_speech: Sequence[str]) -> bool:
    return part_of_speech[0] not in _NOT_CONTENT


def _grams(run: str) -> Iterator[str]:
    """Characters and pairs of neighbours. Those of hiragana alone are endings and particles: morphology does better.

    They share their terms with words of the same spelling, which therefore weigh more than a chance neighbourhood.
    """
    for place, character in enumerate(run):
        if not _HIRAGANA.fullmatch(character):
            yield character
        pair = run[place : place + 2]
        if len(pair) == 2 and not _HIRAGANA_PAIR.fullmatch(pair):
            yield pair


def _unspaced_lines(text: str) -> Iterator[str]:
    """The lines that need morphology, cut where they are too long for one call."""
    for line in text.splitlines():
        if _UNSPACED_RUN.search(line):
            for start in range(0, len(line), _SLICE):
                yield line[start : start + _SLICE]


@lru_cache(maxsize=200_000)
def _term_id(term: str) -> int:
    return int.from_bytes(blake2b(term.encode(), digest_size=4).digest(), "little")


class _Tools(threading.local):
    """Tokenizer and stemmer may each be used by one thread at a time, so every thread has its own."""

    def __init__(self) -> None:
        from Stemmer import Stemmer

        self.tokenizer: Tokenizer = _make_tokenizer()
        self.stem = Stemmer("english").stemWord


@cache
def _tools() -> _Tools:
    return _Tools()


_loading = threading.Lock()


def _make_tokenizer() -> Tokenizer:
    from sudachipy import SplitMode

    with _loading:
        return _dictionary().tokenizer(mode=SplitMode.A)


@cache
def _dictionary() -> Dictionary:
    """Loaded on first use, in about 0.4 s."""
    from sudachipy import Dictionary

    return Dictionary(dict="core")
