from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terakoya.rag.sentences import sentences


def _texts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["返品は30日以内です。", "送料は無料です！", "ご不明な点はありますか？", "お問い合わせください"],
        ["「在庫はあります。明日届きます。」と店員は言った。", "安心した。"],
        ["本規定は社員に適用する（ただし、嘱託を除く。）。", "施行日は4月1日とする。"],
        ["料金は3．5円．", "税は別．"],
        ["すごい!", "明日も来ます。"],
        ["「はい。」", "彼はうなずいた。"],
    ],
)
def test_japanese_sentences_end_at_their_marks_and_not_inside_quotations(expected: list[str]) -> None:
    assert _texts("".join(expected)) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith arrived at 3.5 p.m. on Monday.", "He left."],
        ["See Fig. 3 and No. 7 for details, e.g. the U.S. Treasury.", "Is that all?", "Yes!"],
        ['He said "Stop." and ran.', "Nobody followed."],
        ["It was made by Acme Inc. in 1999.", "They sold it to Foo Ltd.", "The end."],
        ["Edit terakoya.toml first.", "Then run it."],
        ["J. R. Smith wrote it.", "(This is a note. It stays whole.)", "Done."],
        ["Can it, e.g. today, be done?", "In 2020.", "3 of them were."],
    ],
)
def test_english_sentences_end_at_their_marks_and_not_at_abbreviations(expected: list[str]) -> None:
    assert _texts(" ".join(expected)) == expected


def test_a_wrapped_line_goes_on_and_a_short_line_ends() -> None:
    wrapped = "The warranty covers defects in material and workmanship for a period of\ntwo years from delivery."
    assert _texts(wrapped) == [wrapped]
    assert _texts("Opening hours\nMonday to Friday\n9:00-17:00") == ["Opening hours", "Monday to Friday", "9:00-17:00"]


def test_list_items_and_paragraphs_end_without_a_mark() -> None:
    item = "a point that is long enough to reach the right margin of the text, all of it"
    assert _texts(f"- {item}\n- {item}\n\n{item}") == [f"- {item}", f"- {item}", item]
    assert _texts("1. First do this.\n2. Then that.") == ["1. First do this.", "2. Then that."]


def test_a_bracket_that_never_closes_does_not_hold_the_text_together() -> None:
    assert _texts("「始めた。次に進む。終わり。") == ["「始めた。", "次に進む。", "終わり。"]


@given(st.text(alphabet="aA1.。！？!?「」（）()\n \u3000、・-\"'…とEe", max_size=200))
def test_sentences_cover_all_but_white_space_in_order(text: str) -> None:
    spans = sentences(text)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    assert edges == sorted(edges)
    assert all(text[end:start].strip() == "" for end, start in zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("piece", ["あ。", "「", "「あ。」", "Mr. A ", "\n ", "(", ".)", "...", "a" * 1000 + ". "])
def test_time_grows_with_the_length_alone(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    started = time.process_time()
    sentences(text)
    assert time.process_time() - started < 4
