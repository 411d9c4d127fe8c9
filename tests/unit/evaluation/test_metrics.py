from __future__ import annotations

import pytest

from terakoya.evaluation.metrics import chrf, is_exact_match, may_become, token_f1


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


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("the cat", "the cat", 1.0),
        ("t h e c a t", "thecat", 1.0),  # spaces do not count
        ("", "the cat", 0.0),
        ("xyz", "abc", 0.0),
        ("", "", 1.0),
        # one gram: p 2/2, r 2/3; two grams: p 1/1, r 1/2; longer ones the answer does not have
        ("ab", "abc", 5 * 1.0 * (7 / 12) / (4 * 1.0 + 7 / 12)),
        # grams of one to four of five: 4/5 and 4/6, 3/4 and 3/5, 2/3 and 2/4, 1/2 and 1/3, 0/1 and 0/2
        ("abcdx", "abcdyz", 5 * (163 / 300) * 0.42 / (4 * (163 / 300) + 0.42)),
    ],
)
def test_chrf_is_the_f_score_of_character_n_grams(answer: str, reference: str, score: float) -> None:
    assert chrf(answer, reference) == pytest.approx(score)


def test_chrf_counts_what_is_missing_more_than_what_is_too_much() -> None:
    assert chrf("abc", "abcdef") < chrf("abcdef", "abc")


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("It was on Friday.", "on friday it was", 1.0),
        ("Friday", "It was on Friday", 2 * 1 / (1 + 4)),
        ("no no no", "no", 2 * 1 / (3 + 1)),
        ("猫が好き", "犬が好き", 2 * 3 / (4 + 4)),  # characters
        ("ＡＢＣを使う", "abc を使う", 1.0),  # a Latin word in Japanese is one token
        ("?!", "yes", 0.0),
        ("", "", 1.0),
    ],
)
def test_token_f1_compares_words_or_japanese_characters(answer: str, reference: str, score: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(score)
