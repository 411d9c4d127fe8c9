from __future__ import annotations

import pytest

from terakoya.evaluation.metrics import is_exact_match, may_become


@pytest.mark.parametrize(
    ("answer", "reference", "matches"),
    [
        ("delivery", "delivery", True),
        (" delivery\n", "delivery", True),
        ("two  words", "two\nwords", True),
        ("ＡＢＣ１２３", "ABC123", True),
        ("か\u3099", "が", True),
        ("Delivery", "delivery", False),
        ("delivery.", "delivery", False),
        ("", "delivery", False),
    ],
)
def test_spacing_and_width_do_not_count_but_case_and_punctuation_do(answer: str, reference: str, matches: bool) -> None:
    assert is_exact_match(answer, reference) is matches


@pytest.mark.parametrize(
    ("beginning", "reference", "possible"),
    [
        ("", "delivery", True),
        (" del", "delivery", True),
        ("delivery", "delivery", True),
        ("delivery n", "delivery", False),
        ("The", "delivery", False),
        ("two ", "two words", True),
        ("か", "が", True),
        ("日\ufffd", "日本", True),
        ("月\ufffd", "日本", False),
        ("㌔", "キロ", True),
    ],
)
def test_a_beginning_is_given_up_only_when_nothing_can_make_it_match(
    beginning: str, reference: str, possible: bool
) -> None:
    assert may_become(beginning, reference) is possible
