"""What a Word document's styles and numberings say of its paragraphs: which are headings, which belong to a list, and
what their number looks like. Knows nothing of their text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from terakoya.rag.indexing.parsers.ooxml import Package
from terakoya.rag.indexing.parsers.xml_events import END, START

MAX_LEVEL = 9
_HEADING = re.compile(r"(?:heading|見出し)\s*([1-9])", re.I)
_CONTENTS = re.compile(r"(?:toc|目次)\s*[1-9]", re.I)
_CAPTION = re.compile(r"caption|図表番号", re.I)
_PLACE = re.compile(r"%([1-9])")
_BULLET = "-"
_KANJI = "〇一二三四五六七八九"
_IROHA = "イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス"
_AIUEO = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"


@dataclass(slots=True)
class Style:
    name: str = ""
    based_on: str | None = None
    outline: int | None = None
    """From 0."""
    numbering: str | None = None
    numbering_level: int | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A style with what it inherits."""

    heading: int = 0
    """Level from 1; 0 if it is none."""
    is_title: bool = False
    is_contents: bool = False
    """A line of the table of contents."""
    is_caption: bool = False
    numbering: str | None = None
    numbering_level: int = 0


@dataclass(slots=True)
class _Level:
    form: str = "decimal"
    text: str = ""
    start: int = 1


@dataclass(slots=True)
class Numbering:
    """Counts as Word does: one counter a level, those below set back."""

    abstract_of: dict[str, str] = field(default_factory=dict)
    levels: dict[tuple[str, int], _Level] = field(default_factory=dict)
    _counters: dict[str, list[int | None]] = field(default_factory=dict)

    def mark(self, numbering: str, level: int) -> tuple[str, bool]:
        """Count one more paragraph and return its mark, "" if it has none, and whether that is a number."""
        abstract = self.abstract_of.get(numbering)
        if abstract is None or (abstract, level) not in self.levels:
            return _BULLET, False
        own = self.levels[abstract, level]
        counters = self._counters.setdefault(abstract, [None] * (MAX_LEVEL + 1))
        counters[level] = own.start if (count := counters[level]) is None else count + 1
        counters[level + 1 :] = [None] * (MAX_LEVEL - level)
        if own.form == "bullet":
            return _BULLET, False
        if own.form == "none":
            return "", False
        return _PLACE.sub(lambda match: self._number(abstract, counters, int(match[1]) - 1), own.text), True

    def _number(self, abstract: str, counters: list[int | None], level: int) -> str:
        form = self.levels.get((abstract, level), _Level())
        count = counters[level]
        return _formatted(form.start if count is None else count, form.form)


def read_styles(package: Package, document: str) -> dict[str, Resolved]:
    """Return the paragraph styles by id."""
    part = package.related(document, "styles")
    styles: dict[str, Style] = {}
    current = Style()
    for kind, name, attributes in package.events(part) if part else ():
        if kind != START:
            continue
        value = attributes.get("val", "")
        if name == "style":
            current = styles.setdefault(attributes.get("styleId", ""), Style())
        elif name == "name":
            current.name = value
        elif name == "basedOn":
            current.based_on = value
        elif name == "outlineLvl":
            current.outline = _small(value)
        elif name == "numId":
            current.numbering = value
        elif name == "ilvl":
            current.numbering_level = _small(value)
    return {style_id: _resolved(styles, style_id) for style_id in styles}


def read_numbering(package: Package, document: str) -> Numbering:
    part = package.related(document, "numbering")
    numbering = Numbering()
    abstract, number, level = "", "", _Level()
    for kind, name, attributes in package.events(part) if part else ():
        value = attributes.get("val", "")
        if kind == END:
            continue
        if name == "abstractNum":
            abstract = attributes.get("abstractNumId", "")
        elif name == "num":
            number = attributes.get("numId", "")
        elif name == "abstractNumId":
            numbering.abstract_of[number] = value
        elif name == "lvl":
            level = numbering.levels[abstract, _small(attributes.get("ilvl", "0"))] = _Level()
        elif name == "numFmt":
            level.form = value
        elif name == "lvlText":
            level.text = value[:40]
        elif name == "start":
            level.start = int(value) if value.isascii() and value.isdigit() and len(value) < 7 else 1
    return numbering


def _resolved(styles: dict[str, Style], style_id: str) -> Resolved:
    chain: list[Style] = []
    seen: set[str] = set()
    following: str | None = style_id
    while following is not None and following in styles and following not in seen and len(chain) < 32:
        seen.add(following)
        chain.append(styles[following])
        following = styles[following].based_on
    names = [style.name for style in chain]
    outline = next((style.outline for style in chain if style.outline is not None), None)
    named = next((int(match[1]) for name in names if (match := _HEADING.fullmatch(name))), 0)
    return Resolved(
        heading=outline + 1 if outline is not None and outline < MAX_LEVEL else named,
        is_title=chain[0].name.lower() in ("title", "表題"),
        is_contents=any(map(_CONTENTS.fullmatch, names)),
        is_caption=any(map(_CAPTION.fullmatch, names)),
        numbering=next((style.numbering for style in chain if style.numbering is not None), None),
        numbering_level=next((style.numbering_level for style in chain if style.numbering_level is not None), 0),
    )


def _small(value: str) -> int:
    return min(int(value), MAX_LEVEL) if value.isascii() and value.isdigit() and len(value) < 4 else 0


def _formatted(number: int, form: str) -> str:
    if form in ("lowerLetter", "upperLetter"):
        letter = chr(ord("a") + (number - 1) % 26) * min(1 + (number - 1) // 26, 9)
        return letter if form == "lowerLetter" else letter.upper()
    if form in ("lowerRoman", "upperRoman"):
        return _roman(number) if form == "upperRoman" else _roman(number).lower()
    if form in ("japaneseCounting", "ideographDigital", "japaneseDigitalTenThousand", "chineseCounting"):
        return _kanji(number)
    if form in ("aiueo", "aiueoFullWidth"):
        return _AIUEO[(number - 1) % len(_AIUEO)]
    if form in ("iroha", "irohaFullWidth"):
        return _IROHA[(number - 1) % len(_IROHA)]
    if form.startswith("decimalEnclosedCircle") and 1 <= number <= 20:
        return chr(ord("①") + number - 1)
    if form == "decimalFullWidth":
        return str(number).translate({ord("0") + digit: ord("０") + digit for digit in range(10)})
    return f"{number:02}" if form == "decimalZero" else str(number)


def _roman(number: int) -> str:
    if not 0 < number < 4000:
        return str(number)
    text = ""
    for value, sign in (
        *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL")),
        *((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
    ):
        text += sign * (number // value)
        number %= value
    return text


def _kanji(number: int) -> str:
    if not 0 < number < 10_000:
        return str(number)
    text = ""
    for value, sign in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // value
        number %= value
        if digit:
            text += ("" if digit == 1 and sign else _KANJI[digit]) + sign
    return text
