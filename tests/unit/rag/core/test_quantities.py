from __future__ import annotations

from decimal import Decimal

import pytest

from terakoya.rag.core.quantities import Quantity, contradicted, quantities_in, unsupported


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("30日以内に", "30", "day"),
        ("３０日間", "30", "day"),
        ("三十日", "30", "day"),
        ("within 30 days", "30", "day"),
        ("a 30-day period", "30", "day"),
        ("thirty days", "30", "day"),
        ("5営業日", "5", "workday"),
        ("five business days", "5", "workday"),
        ("1,500円", "1500", "yen"),
        ("￥1,500", "1500", "yen"),
        ("3万円", "30000", "yen"),
        ("三万円", "30000", "yen"),
        ("$2.5 million", "2500000", "dollar"),
        ("12.50%", "12.5", "percent"),
        ("二〇二六年", "2026", "year"),
        ("15 GB of storage", "15", "gb"),
        ("version 3.2", "3.2", None),
        ("9 horses", "9", None),
        ("3か月", "3", "month"),
    ],
)
def test_numbers_are_read_however_they_are_written(text: str, value: str, unit: str | None) -> None:
    assert quantities_in(text) == (Quantity(Decimal(value).normalize(), unit),)


@pytest.mark.parametrize("text", ["一部の返品", "one of them", "十分な在庫", "no number", "……", "万年筆"])
def test_what_is_no_number_is_not_read_as_one(text: str) -> None:
    assert quantities_in(text) == ()


def test_a_changed_number_or_unit_is_unsupported() -> None:
    given = quantities_in("返品は到着後30日以内、手数料は500円です。")
    assert unsupported(quantities_in("30 days, 500 yen"), given) == ()
    assert unsupported(quantities_in("within 14 days"), given) == quantities_in("14 days")
    assert unsupported(quantities_in("30か月以内"), given) == quantities_in("30か月")
    assert unsupported(quantities_in("number 30"), given) == ()


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("12歳", "12歳である"),
        ("30 days", "30 calendar days"),
        ("5 studies", "5 large studies of mice"),
        ("3種", "3種類の花"),
        ("3人", "人数 3"),
        ("2.5 fold", "a 2.5-fold rise"),
        ("21-day", "within 21 days"),
        ("1,200メートル", "1200m"),
        ("year 1990", "in 1990"),
    ],
)
def test_a_number_that_counts_the_same_is_not_contradicted(claim: str, source: str) -> None:
    assert contradicted(claim, source) == ()


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("12票を得た", "12人が並んだ"),
        ("12円", "12歳である"),
        ("5 trials", "5 large studies of mice"),
        ("1979年代12月", "1979年12月"),
        ("13歳", "12歳である"),
        ("1234時間", "ビルマ暦1234年を1234と書く"),
        ("3 weeks", "3 kg"),
    ],
)
def test_a_number_that_counts_something_else_is_contradicted(claim: str, source: str) -> None:
    assert contradicted(claim, source) != ()
