"""Numbers with their units as Japanese and English texts write them, made comparable: "３０日間", "三十日" and
"30 days" are one quantity. Knows nothing of questions or citations.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from unicodedata import normalize

from terakoya.rag.retrieval.words import STOP_WORDS

_UNITS: dict[str, tuple[str, ...]] = {
    "percent": ("%", "percent", "パーセント", "pct"),
    "yen": ("円", "yen", "jpy", "¥"),
    "dollar": ("ドル", "dollars", "dollar", "usd", "$"),
    "euro": ("ユーロ", "euros", "euro", "eur", "€"),
    "decade": ("年代",),
    "year": ("年間", "年", "years", "year", "か年", "カ年"),
    "month": ("か月", "ヶ月", "カ月", "ケ月", "箇月", "months", "month"),
    "month_name": ("月",),
    "week": ("週間", "週", "weeks", "week"),
    "workday": ("営業日", "business days", "business day", "working days", "working day", "workdays", "workday"),
    "day": ("日間", "日", "days", "day"),
    "hour": ("時間", "hours", "hour", "hrs", "hr", "h"),
    "minute": ("分間", "分", "minutes", "minute", "mins", "min"),
    "second": ("秒間", "秒", "seconds", "second", "secs", "sec"),
    "clock": ("時", "o'clock"),
    "person": ("人", "名", "people", "persons", "person", "members", "member"),
    "time": ("回", "度", "times"),
    "piece": ("個", "件", "点", "pieces", "piece", "items", "item"),
    "km": ("キロメートル", "km", "kilometres", "kilometers"),
    "cm": ("センチ", "cm"),
    "mm": ("ミリ", "mm"),
    "m": ("メートル", "metres", "meters", "m"),
    "kg": ("キログラム", "キロ", "kg", "kilograms"),
    "mg": ("mg", "milligrams"),
    "g": ("グラム", "g", "grams"),
    "ml": ("ミリリットル", "ml"),
    "litre": ("リットル", "litres", "liters", "l"),
    "degree": ("℃", "°c", "degrees"),
    "kb": ("kb",),
    "mb": ("mb", "メガバイト"),
    "gb": ("gb", "ギガバイト"),
    "tb": ("tb",),
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings}
_PREFIXED = {"¥": "yen", "$": "dollar", "€": "euro"}
_SCALES = {"百": 10**2, "千": 10**3, "万": 10**4, "億": 10**8, "兆": 10**12}
_SCALE_WORDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_DIGITS = {digit: value for value, digit in enumerate("〇一二三四五六七八九")} | {"零": 0}
_TEENS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = dict(zip(_TEENS, range(2, 20), strict=True)) | dict(zip(_TENS, range(20, 100, 10), strict=True))
"""Without "one", which is more often a pronoun."""

_spellings = sorted(_UNIT_OF, key=len, reverse=True)
_ASCII_UNIT = "|".join(re.escape(text) for text in _spellings if text.isascii() and text[0].isalpha())
_OTHER_UNIT = "|".join(re.escape(text) for text in _spellings if not (text.isascii() and text[0].isalpha()))
_UNIT = rf"(?:(?P<unit>{_OTHER_UNIT})|[\s-]?(?P<word>{_ASCII_UNIT})(?![a-z]))?"
_KANJI = "〇零一二三四五六七八九十百千万億兆"
_ARABIC = re.compile(
    rf"(?P<sign>[¥$€])?\s?(?P<number>\d[\d,]*(?:\.\d+)?)(?P<scale>[百千万億兆]|\s(?:thousand|million|billion)\b)?\s?{_UNIT}"
)
_KANJI_NUMBER = re.compile(rf"(?!十分[なにで])(?P<number>[{_KANJI}]+)(?P<unit>{_OTHER_UNIT})")
_WORD_NUMBER = re.compile(rf"\b(?P<number>{'|'.join(_WORDS)})\b{_UNIT}")


_COUNTER = re.compile(r"(?:第?)([\u3005\u30a1-\u30fa\u30fc\u4e00-\u9fff]{1,3}|つ)")
"""What is counted, right behind a number in Japanese: 歳, 世紀, つ."""
_COUNTED_WORD = re.compile(r"[\s-]?([a-z]{2,})")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Quantity:
    value: Decimal
    unit: str | None
    """None where none that is known follows."""
    counted: str | None = field(default=None, compare=False)
    """What follows the number as it is written: a counter of Japanese, or a word that is no stop word."""

    def agrees_with(self, other: Quantity) -> bool:
        """Same number, and no two different units."""
        return self.value == other.value and (None in (self.unit, other.unit) or self.unit == other.unit)


def quantities_in(text: str) -> tuple[Quantity, ...]:
    """Return the quantities of a text, in the order of the three ways they are written."""
    plain = normalize("NFKC", text).lower()
    found = [quantity for match in _ARABIC.finditer(plain) if (quantity := _from_digits(match)) is not None]
    found += [
        Quantity(Decimal(value), _UNIT_OF[match["unit"]], match["unit"])
        for match in _KANJI_NUMBER.finditer(plain)
        if (value := _from_kanji(match["number"])) is not None and not _is_scaled_arabic(plain, match.start())
    ]
    found += [
        Quantity(Decimal(_WORDS[match["number"]]), _unit(match), _counted(match))
        for match in _WORD_NUMBER.finditer(plain)
    ]
    return tuple(found)


def unit_named(spelling: str) -> str | None:
    """Return the unit that is written so, None if it is none that is known."""
    return _UNIT_OF.get(spelling)


def unsupported(claimed: Iterable[Quantity], given: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """Return the claimed quantities with which no given one agrees."""
    known = tuple(given)
    return tuple(claim for claim in claimed if not any(claim.agrees_with(other) for other in known))


def contradicted(claim: str, source: str) -> tuple[Quantity, ...]:
    """Return the quantities of a claim that its source does not hold with the same unit, or counting the same.

    Stricter than ``unsupported``: a unit that is not in the table must follow the number in the source too. In English
    other words may stand between: then the source must hold the word.
    """
    given = quantities_in(source)
    words = {_singular(word) for word in _WORD.findall(normalize("NFKC", source).lower())}
    return tuple(one for one in quantities_in(claim) if not _is_held(one, given, words))


def _is_held(claim: Quantity, given: Iterable[Quantity], words: Collection[str]) -> bool:
    same = [one for one in given if one.value == claim.value]
    # Where the source says what the number counts, its other mentions without a unit do not make it another.
    telling = [one for one in same if one.counted is not None]
    return any(_is_same(claim, one, words) for one in telling or same)


def _is_same(claim: Quantity, given: Quantity, words: Collection[str]) -> bool:
    if claim.unit is not None and given.unit is not None:
        return claim.unit == given.unit
    if claim.counted is None or given.counted is None:  # a table has the unit in its header
        return True
    if claim.counted.isascii():
        return _singular(claim.counted) in words
    return claim.counted.startswith(given.counted) or given.counted.startswith(claim.counted)


def _singular(word: str) -> str:
    return word.removesuffix("s")


def _counted(match: re.Match[str]) -> str | None:
    """Return what the number of a match counts: its unit as it is written, or what follows."""
    if (unit := match["unit"] or match["word"]) is not None:
        return unit
    if (counter := _COUNTER.match(match.string, match.end())) is not None:
        return counter[1]
    word = _COUNTED_WORD.match(match.string, match.end())
    return word[1] if word is not None and word[1] not in STOP_WORDS else None


def _from_digits(match: re.Match[str]) -> Quantity | None:
    try:
        value = Decimal(match["number"].replace(",", ""))
    except InvalidOperation:
        return None
    scale = (match["scale"] or "").strip()
    value *= _SCALES.get(scale) or _SCALE_WORDS.get(scale) or 1
    unit = _PREFIXED.get(match["sign"] or "") or _unit(match)
    return Quantity(value.normalize(), unit, _counted(match))


def _unit(match: re.Match[str]) -> str | None:
    return _UNIT_OF.get(match["unit"] or match["word"] or "")


def _is_scaled_arabic(text: str, start: int) -> bool:
    """ "3万円": the digits before it have been read with their scale."""
    return start > 0 and text[start - 1].isdigit()


def _from_kanji(text: str) -> int | None:
    """Return 三百二十 as 320 and 二〇二六 as 2026; None for what is no number."""
    if all(character in _DIGITS for character in text):
        return int("".join(str(_DIGITS[character]) for character in text))
    total = section = digit = 0
    for character in text:
        if character in _DIGITS:
            digit = _DIGITS[character]
        elif character == "十" or _SCALES.get(character, 0) in (10**2, 10**3):
            section += (digit or 1) * (10 if character == "十" else _SCALES[character])
            digit = 0
        else:
            if not section + digit:
                return None
            total += (section + digit) * _SCALES[character]
            section = digit = 0
    return total + section + digit
