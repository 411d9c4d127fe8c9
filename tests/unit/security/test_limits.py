from __future__ import annotations

import pytest

from terakoya.exceptions import TooLarge
from terakoya.security.limits import LABEL_CHARACTERS, ByteCap, safe_label


def test_the_cap_lets_its_limit_through_and_not_one_byte_more() -> None:
    cap = ByteCap(10, what="an upload")
    cap.expect(10)
    cap.add(10)
    with pytest.raises(TooLarge, match="an upload may hold 10 bytes"):
        cap.add(1)


def test_an_announced_length_is_refused_before_a_byte() -> None:
    cap = ByteCap(10, what="an upload")
    with pytest.raises(TooLarge, match="11 bytes were announced"):
        cap.expect(11)
    assert cap.total == 0


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/absolute/データ.jsonl", "データ.jsonl"),
        ("a\x00b\r\nc\u202ed", "abcd"),
        ("..", None),
        ("", None),
        (None, None),
        ("x" * 1000, "x" * LABEL_CHARACTERS),
    ],
)
def test_a_label_is_the_last_part_in_printable_characters(name: str | None, label: str | None) -> None:
    assert safe_label(name) == label
