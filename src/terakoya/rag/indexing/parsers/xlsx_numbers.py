"""Numbers of a spreadsheet as its reader sees them: dates, percentages, thousands, units. Knows nothing of cells."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache

_BUILT_IN = {
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    9: "0%",
    10: "0.00%",
    37: "#,##0",
    38: "#,##0",
    39: "#,##0.00",
    40: "#,##0.00",
    44: "#,##0.00",
    41: "#,##0",
    42: "#,##0",
    43: "#,##0.00",
    22: "yyyy/m/d h:mm",
    **dict.fromkeys((14, 15, 16, 17, *range(27, 32), *range(50, 59), 36), "yyyy/m/d"),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 46, 47), "h:mm:ss"),
}
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]|_.|\*.')
_PATTERN = re.compile(r"[#0?][#0?,.]*")
_TIME = re.compile(r"[hHsS]")
_DAY = re.compile(r"[yYdDgGeEaA]")
_ELAPSED = re.compile(r"\[[hm]+\]", re.I)
_SCIENTIFIC = re.compile(r"[eE][+-]")
_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)
_EPOCH_1904 = datetime(1904, 1, 1, tzinfo=UTC)
_MAX_DAYS = 2_958_465
"""31 December 9999."""
_MAX_LITERAL = 20


def built_in_format(number: int) -> str:
    """Return the format that every workbook has under this number, "" if it is the general one."""
    return _BUILT_IN.get(number, "")


def shown(value: str, form: str, *, is_1904: bool = False) -> str:
    """Return a stored number as the format shows it; as it is stored where either is not understood.

    Dates become 2026-04-01 (2026年4月1日 where the format says 年), times 13:30: the same in every language.
    """
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    if not number.is_finite() or abs(number.adjusted()) > 30:
        return value
    positive = form.split(";")[0] if form else ""
    day, clock, japanese = _date_parts(positive)
    if day or clock:
        return _date(number, value, day=day, clock=clock, japanese=japanese, is_1904=is_1904)
    return _amount(number, positive)


@lru_cache(maxsize=1024)
def _date_parts(form: str) -> tuple[bool, bool, bool]:
    """Return whether a format shows a day, a time, and a day in Japanese."""
    if _ELAPSED.search(form):
        return False, True, False
    bare = _LITERAL.sub("", form)
    if _SCIENTIFIC.search(bare) or "#" in bare or "0.0" in bare or bare.lower() in ("", "general", "@"):
        return False, False, False
    day = _DAY.search(bare) is not None
    clock = _TIME.search(bare) is not None
    return day or ("m" in bare.lower() and not clock), clock, "年" in form


def _date(number: Decimal, value: str, *, day: bool, clock: bool, japanese: bool, is_1904: bool) -> str:
    if not 0 <= number <= _MAX_DAYS:
        return value
    if not day:
        minutes = int((number * 1440).to_integral_value(ROUND_HALF_UP))
        return f"{minutes // 60}:{minutes % 60:02}"
    epoch = _EPOCH_1904 if is_1904 else _EPOCH
    moment = epoch + timedelta(seconds=int((number * 86_400).to_integral_value(ROUND_HALF_UP)))
    text = f"{moment.year}年{moment.month}月{moment.day}日" if japanese else f"{moment:%Y-%m-%d}"
    return f"{text} {moment:%H:%M}" if clock else text


def _amount(number: Decimal, form: str) -> str:
    before, pattern, after = _split(form)
    if not pattern:
        return f"{before}{_general(number)}{after}"
    if "%" in after or "%" in before:
        number *= 100
    whole, _, decimals = pattern.partition(".")
    try:
        rounded = number.quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP)
    except InvalidOperation:
        return _general(number)
    digits = f"{rounded:,f}" if "," in whole.rstrip(",") else f"{rounded:f}"
    optional = len(decimals) - len(decimals.rstrip("#"))
    if optional and "." in digits:
        digits = (digits[: len(digits) - optional] + digits[len(digits) - optional :].rstrip("0")).rstrip(".")
    if whole.endswith(","):  # shown in thousands: what is stored tells more
        return _general(number)
    minus = "-" if digits.startswith("-") else ""
    return f"{minus}{before}{digits.removeprefix('-')}{after}"


@lru_cache(maxsize=1024)
def _split(form: str) -> tuple[str, str, str]:
    """Return what a format shows before the digits, its pattern of digits, and what it shows after them."""
    if form.lower() in ("", "general", "@") or _SCIENTIFIC.search(form):
        return "", "", ""
    pieces: list[str] = []
    at = 0
    marked = ""  # literals are hidden from the search for digits
    for match in _LITERAL.finditer(form):
        marked += form[at : match.start()]
        pieces.append(next((group for group in match.groups() if group), ""))
        marked += chr(0xE000 + len(pieces) - 1)
        at = match.end()
    marked += form[at:]
    found = _PATTERN.search(marked)

    def restored(text: str) -> str:
        plain = "".join(
            pieces[ord(sign) - 0xE000] if 0xE000 <= ord(sign) < 0xE000 + len(pieces) else sign for sign in text
        )
        return plain.replace("General", "").strip()[:_MAX_LITERAL]

    if found is None:
        return "", "", restored(marked) if "General" in form else ""
    return restored(marked[: found.start()]), found.group(), restored(marked[found.end() :])


def _general(number: Decimal) -> str:
    """Fifteen digits, as spreadsheets show at most: 0.1 is stored as 0.10000000000000001."""
    text = f"{float(number):.15g}"
    return text if "e" not in text else f"{number.normalize():f}" if abs(number.adjusted()) < 16 else text
