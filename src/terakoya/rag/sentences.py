"""Where sentences end, in Japanese and English, as offsets into the text. By rule and in linear time: what matters
is that a citation never begins or ends in the middle of a clause, not that every abbreviation is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import east_asian_width

Span = tuple[int, int]
"""Start and end, in code points."""

_MARGIN_COLUMNS = 50
"""A line that stops short of this was not wrapped: the break after it is meant."""
_MAX_BRACKETED = 200
"""Brackets further apart than this do not hold a sentence together."""
_PAIRS = {"「": "」", "『": "』", "（": "）", "(": ")", "【": "】", "〔": "〕", "《": "》", "〈": "〉", "“": "”"}
_BRACKETS = re.compile("[" + re.escape("".join(_PAIRS) + "".join(_PAIRS.values())) + "]|\n[ \t\r\u3000]*\n")
_CLOSERS = "」』）)】〕》〉”’\"'"
_END = re.compile(rf"(?:[。｡．！？!?.]+[{re.escape(_CLOSERS)}]*)+|…+(?=\s)|\n\s*")
_GOES_ON = re.compile(r"と|って|は|が|を|に|の|も|で|や|か|だ|なんて|など|へ|より|から|まで|、")
"""After a closed bracket: the sentence around the quotation continues."""
_LIST_ITEM = re.compile(r"[-*+•・◦●○■□◆◇※＊→]|[(（\[]?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)）\]．、]\s?|[①-⑳]|\||#{1,6} ")
_NEVER_LAST = frozenset(
    (
        *(
            "mr",
            "mrs",
            "ms",
            "dr",
            "prof",
            "st",
            "sr",
            "jr",
            "gov",
            "hon",
            "rep",
            "sen",
            "capt",
            "col",
            "lt",
            "sgt",
            "rev",
        ),
        *(
            "vs",
            "e.g",
            "i.e",
            "cf",
            "viz",
            "al",
            "fig",
            "figs",
            "eq",
            "eqs",
            "sec",
            "ch",
            "vol",
            "pp",
            "ed",
            "eds",
            "dept",
        ),
        *("approx", "est", "gen", "mt", "ft", "inc", "ltd", "co", "corp"),
        *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
    )
)
_BEFORE_NUMBERS = frozenset(("no", "nos", "p", "pp", "fig", "art", "par", "ver", "v", "tel"))
_MAY_END = frozenset(("inc", "ltd", "co", "corp", "al", "jr", "sr"))
"""Abbreviations that a sentence may end with: one does if a capital letter follows."""
_MAX_WORD = 24


def sentences(text: str) -> tuple[Span, ...]:
    """Return the spans of the sentences in order: not empty, not overlapping, all but white space covered."""
    spans: list[Span] = []
    start = 0
    for end in _boundaries(text):
        _add(spans, text, start, end)
        start = end
    _add(spans, text, start, len(text))
    return tuple(spans)


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.lstrip()
    if stripped:
        start = end - len(stripped)
        spans.append((start, start + len(stripped.rstrip())))


def _boundaries(text: str) -> Iterator[int]:
    bracketed = _bracketed(text)
    inside = next(bracketed, None)
    line_start = 0
    for match in _END.finditer(text):
        while inside is not None and inside[1] <= match.start():
            inside = next(bracketed, None)
        is_inside = inside is not None and inside[0] < match.start()
        if text[match.start()] == "\n":
            is_end = _ends_at_newline(text, line_start, match) and not (is_inside and "\n" not in match.group()[1:])
            line_start = match.end()
        elif is_inside and inside is not None and match.end() < inside[1]:
            is_end = False
        else:
            is_end = _ends_at_mark(text, line_start, match)
        if is_end:
            yield match.end()


def _bracketed(text: str) -> Iterator[Span]:
    """Yield the outermost pairs of brackets that belong together, with the closing one."""
    open_brackets: list[tuple[str, int]] = []
    found: list[Span] = []
    for match in _BRACKETS.finditer(text):
        mark = match.group()
        if mark[0] == "\n":  # no bracket reaches over a blank line
            open_brackets.clear()
        elif mark in _PAIRS:
            open_brackets.append((_PAIRS[mark], match.start()))
        elif open_brackets and open_brackets[-1][0] == mark:
            _, start = open_brackets.pop()
            if match.end() - start <= _MAX_BRACKETED:
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, match.end()))
        else:
            open_brackets.clear()
    yield from found


def _ends_at_newline(text: str, line_start: int, match: re.Match[str]) -> bool:
    if match.group().count("\n") > 1 or match.group().endswith("\u3000"):
        return True
    if _LIST_ITEM.match(text, match.end()):
        return True
    line = text[max(line_start, match.start() - _MARGIN_COLUMNS) : match.start()]
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in line) < _MARGIN_COLUMNS


def _ends_at_mark(text: str, line_start: int, match: re.Match[str]) -> bool:
    mark, after = match.group(), text[match.end() : match.end() + 1]
    before = text[match.start() - 1 : match.start()]
    if mark[-1] in _CLOSERS and _GOES_ON.match(text, match.end()):
        return False
    if not after:
        return True
    if mark[0] == "．":
        return not (before.isdigit() and after.isdigit())
    if mark[0] in "。｡！？":
        return True
    if not after.isspace():  # "3.5", "terakoya.toml", "a.m.,"; but "すごい!明日"
        return mark[0] in "!?" and not before.isascii() and not after.isascii()
    following = text[match.end() : match.end() + 8].lstrip()[:1]
    if mark[0] != "." or not before.isascii():
        return not following.islower()
    return _ends_at_period(text, line_start, match.start(), following)


def _ends_at_period(text: str, line_start: int, period: int, following: str) -> bool:
    if following.islower():
        return False
    if period - line_start < _MAX_WORD and text[line_start:period].strip().isdigit():  # "1. First, ..."
        return False
    words = text[max(line_start, period - _MAX_WORD) : period].split()
    word = words[-1].lstrip("([\"'“‘-") if words else ""
    key = word.lower()
    if key in _BEFORE_NUMBERS and following.isdigit():
        return False
    if key in _MAY_END:
        return following.isupper()
    if len(word) == 1 and word.isupper() and word != "I":  # "J. R. Smith"
        return False
    return key not in _NEVER_LAST and not ("." in word and word.isupper() and word.replace(".", "").isalpha())
