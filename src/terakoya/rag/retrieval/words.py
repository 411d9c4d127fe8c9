"""Words and numbers of space-separated scripts: what a term is in English, and in "3.5%", "10 kg" or "KX-200".

Works on text that is already NFKC-normalised and casefolded; knows nothing of Japanese morphology.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7a3"
)
"""Scripts written without spaces, as a character class: Japanese and Chinese, Thai, Lao, Burmese, Khmer; and Korean,
whose endings stick to the word."""

_LETTER = rf"[^\W\d_{UNSPACED}]"
_CHUNK = re.compile(rf"[^\W_{UNSPACED}]+(?:[-\u2010-\u2013_./'\u2019+][^\W_{UNSPACED}]+)*")
_PART = re.compile(rf"\d+(?:\.\d+)*|{_LETTER}+(?:['\u2019]{_LETTER}+)*")
_HAS_DIGIT = re.compile(r"\d")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SEPARATORS = re.compile(r"[-\u2010-\u2013_/'\u2019+]|(?<!\d)\.|\.(?!\d)")
_UNIT_WORDS = {
    "パーセント": "%",
    "percent": "%",
    "キログラム": "kg",
    "グラム": "g",
    "キロメートル": "km",
    "センチメートル": "cm",
    "ミリメートル": "mm",
    "メートル": "m",
    "リットル": "l",
}
_MEASURE = re.compile(
    r"(?<![\da-z.])(\d+(?:\.\d+)?)(?:(%|°c?|‰)|\s?("
    + "|".join(_UNIT_WORDS)
    + r")|\s((?:[kmgt]i?b|[kmcnµμ]?m|[kmµμn]?g|[mk]?l|[kmg]?hz|k?w|[km]?v|ms|s|min|h|km/h|dpi|px|kcal|mol)(?!\w))"
    + r"|([\u3400-\u9fff]|[\u30a1-\u30fa\u30fc]{2,6}))"
)

STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "such", "no", "not", "and", "or", "but", "if", "then"),
        *("as", "at", "by", "for", "from", "in", "into", "of", "on", "to", "with", "than", "so"),
        *("am", "are", "be", "been", "being", "is", "was", "were", "do", "does", "did", "done", "has", "have", "had"),
        *("can", "could", "should", "would", "will", "must", "shall", "there", "here"),
        *("i", "me", "my", "we", "us", "our", "you", "your", "he", "him", "his", "she", "her", "it", "its", "they"),
        *("them", "their", "what", "which", "who", "whom", "whose", "when", "where", "why", "how"),
    )
)
"""Articles, prepositions, auxiliaries, pronouns, question words. In a small collection their rarity is chance."""


def words(text: str, stem: Callable[[str], str]) -> Iterator[str]:
    """Yield the terms of ``text``, each as often as it occurs.

    A chunk with digits and letters or several parts is found as a whole, without its separators, and by its parts:
    "kx-200" gives "kx200", "kx" and "200". Digits lose leading zeros and thousands separators; a number with its
    unit is one more term: "1,000 kg" gives "1000" and "1000kg".
    """
    text = _THOUSANDS.sub("", text)
    for match in _CHUNK.finditer(text):
        yield from _terms_of_chunk(match[0], stem)
    for match in _MEASURE.finditer(text):
        number, sign, word, spaced, counter = match.groups()
        yield number + (sign or _UNIT_WORDS.get(word) or spaced or counter)


def _terms_of_chunk(chunk: str, stem: Callable[[str], str]) -> Iterator[str]:
    parts = _PART.findall(chunk)
    for part in parts:
        if part[0].isdigit():
            yield part.lstrip("0") or "0"
        elif part not in STOP_WORDS:
            yield stem(_plain(part))
    if len(parts) > 1 and _HAS_DIGIT.search(chunk):
        yield _SEPARATORS.sub("", chunk)


def _plain(word: str) -> str:
    """Without accents, so that "cafe" finds "café"."""
    if word.isascii():
        return word
    decomposed = unicodedata.normalize("NFKD", word.replace("\u2019", "'"))
    return "".join(character for character in decomposed if not unicodedata.combining(character))
