"""What kind of quantity a question asks for, and which model numbers it names. By the usual phrases of Japanese and
English, not by understanding.
"""

from __future__ import annotations

import re
from unicodedata import normalize

from terakoya.rag.core.quantities import unit_named

_MONEY = ("yen", "dollar", "euro")
_DURATION = ("second", "minute", "hour", "day", "workday", "week", "month", "year")
_DATE = ("month_name", "day", "year", "clock")
_PHRASES = (
    (r"いくら|値段|料金|送料|費用|代金|価格", _MONEY),
    (
        r"\bhow much (?:is|are|was|were)\b|\bhow much (?:does|do|did)\b.*\bcost\b|\bwhat (?:does|do|did)\b.*\bcost\b",
        _MONEY,
    ),
    (r"\b(?:price|fee)\b", _MONEY),
    (r"いつ(?!も)|\bwhen\b|\bwhat (?:date|day)\b", _DATE),
    (r"期間は|\bhow (?:long|soon|quickly)\b", _DURATION),
    (r"重さ|重量|\bhow heavy\b|\bhow much weight\b|\bweigh", ("kg", "g", "mg")),
    (r"距離|長さ|\bhow (?:far|deep|wide|high|tall)\b|\bdistance\b", ("km", "m", "cm", "mm")),
    (r"割合|何割|\bpercent|\bdiscount\b", ("percent",)),
    (r"温度|\btemperature\b", ("degree",)),
    (r"何時(?!間)|何時頃|\bwhat time\b", ("clock",)),
)
_ASKS_QUANTITY = re.compile(
    r"\b(?:how (?:many|much|long|often|old|far|large|big|high)|when|what (?:time|date|year|percentage)|until when)\b"
    r"|何[日人回時分年月個件円点歳%名度週]|いくら|いくつ|いつ|何パーセント|どれくらい|どのくらい",
    re.IGNORECASE,
)
_KINDS = tuple((re.compile(phrase), frozenset(units)) for phrase, units in _PHRASES)
_COUNTED = re.compile(
    r"何(か月|ヶ月|カ月|箇月|週間|週|日間|日|年間|年|時間|分間|分|秒間|秒|人|名|回|度|個|件|点|円|キロ|メートル|パーセント|%)"
    r"|\bhow many ((?:business|working) days?|[a-z]+)"
)
_MODEL_NUMBER = re.compile(r"(?<![a-z0-9])([a-z]{1,6})[-_]?(\d{1,6}[a-z]?)(?![a-z0-9])")


def asked_units(question: str) -> frozenset[str]:
    """Return the units (of ``quantities``) that an answer may have; none where the question asks for no quantity."""
    plain = normalize("NFKC", question).lower()
    units = {unit for phrase, kinds in _KINDS if phrase.search(plain) for unit in kinds}
    for japanese, english in _COUNTED.findall(plain):
        unit = unit_named(japanese or english)
        if unit is not None:
            units |= {"day", "workday"} if unit == "day" else {unit}
    return frozenset(units)


def asks_quantity(question: str) -> bool:
    """Whether any number answers it, of whatever kind."""
    return _ASKS_QUANTITY.search(question) is not None


def names_another(question: str, text: str) -> bool:
    """Whether the text names a sibling of what the question names ("MC-310" for "MC-240"), and not that itself."""
    asked, given = _model_numbers(question), _model_numbers(text)
    series = {letters for letters, _ in asked}
    return not asked & given and any(letters in series for letters, _ in given)


def without_siblings(question: str, text: str) -> str:
    """Return the text without the model numbers that are siblings of those the question names."""
    asked = _model_numbers(question)
    series = {letters for letters, _ in asked}

    def kept(match: re.Match[str]) -> str:
        is_sibling = match[1] in series and (match[1], match[2]) not in asked
        return " " if is_sibling else match[0]

    return _MODEL_NUMBER.sub(kept, normalize("NFKC", text).lower()) if series else text


def _model_numbers(text: str) -> frozenset[tuple[str, str]]:
    return frozenset(_MODEL_NUMBER.findall(normalize("NFKC", text).lower()))
