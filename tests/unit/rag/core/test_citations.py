from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from tests.unit.rag.core.conftest import HANDBOOK, REGULATIONS

from terakoya.domain.documents import Hit
from terakoya.rag.core.citations import MarkerFilter, check_answer
from terakoya.rag.core.evidence import EvidenceSentence, evidence_sentences


@pytest.fixture
def numbered(hit_of: Callable[..., Hit]) -> Mapping[int, EvidenceSentence]:
    """1-3 of the handbook, 4-6 of the regulations (the first line of each is its title, left out)."""
    hits = [
        hit_of(HANDBOOK, title="Returns"),
        hit_of(REGULATIONS, document_id="document_2", title="就業規則"),
    ]
    return dict(enumerate(evidence_sentences(hits), start=1))


def test_a_supported_sentence_is_numbered_from_one(numbered: Mapping[int, EvidenceSentence]) -> None:
    answer = check_answer("Lamps may be returned within 21 days [1]. Refunds arrive in 5 business days. [3]", numbered)
    assert answer.text == "Lamps may be returned within 21 days. [1] Refunds arrive in 5 business days. [2]"
    first, second = answer.citations
    assert (first.number, first.quote, first.support) == (1, numbered[1].text, "numbers_and_words")
    assert (second.number, second.quote, second.verified) == (2, numbered[3].text, True)
    assert answer.text[first.answer_start : first.answer_end] == "Lamps may be returned within 21 days."
    assert answer.text[second.answer_start : second.answer_end] == "Refunds arrive in 5 business days."
    assert answer.unsupported_sentences == 0


def test_japanese_is_checked_alike(numbered: Mapping[int, EvidenceSentence]) -> None:
    answer = check_answer("有給休暇は6か月後に10日付与されます【4】。申請は三営業日前までです［5］。", numbered)
    assert [citation.support for citation in answer.citations] == ["numbers_and_words"] * 2
    assert answer.text.count("[1]") == answer.text.count("[2]") == 1


@pytest.mark.parametrize(
    ("written", "support"),
    [
        ("Lamps may be returned within 30 days of delivery. [1]", "numbers_differ"),
        ("Lamps may be returned within 21 weeks of delivery. [1]", "numbers_differ"),
        ("有給休暇は入社から6か月後に20日付与されます。[4]", "numbers_differ"),
        ("The director lives in a castle near Vienna. [1]", "weak_overlap"),
        ("社長はウィーンの近くの城に住んでいます。[4]", "weak_overlap"),
        ("Lamps may be returned within 21 days of delivery. [9]", "no_such_passage"),
        ("ランプは21日以内なら返品できます。[1]", "weak_overlap"),
    ],
)
def test_what_fails_stays_without_a_number_and_says_why(
    written: str, support: str, numbered: Mapping[int, EvidenceSentence]
) -> None:
    answer = check_answer(written, numbered)
    (citation,) = answer.citations
    assert (citation.number, citation.support, citation.verified) == (0, support, False)
    assert "[" not in answer.text
    assert answer.unsupported_sentences == 1


def test_a_good_citation_does_not_vouch_for_the_next_sentence(numbered: Mapping[int, EvidenceSentence]) -> None:
    answer = check_answer("Lamps may be returned within 21 days. [1] Cushions cost 40 euros. [2]", numbered)
    assert [citation.verified for citation in answer.citations] == [True, False]
    assert answer.text.endswith("Cushions cost 40 euros.")
    assert answer.unsupported_sentences == 1


def test_a_sentence_may_rest_on_two_sources(numbered: Mapping[int, EvidenceSentence]) -> None:
    answer = check_answer(
        "Lamps may be returned within 21 days and refunds arrive in 5 business days [1, 3].", numbered
    )
    assert [citation.number for citation in answer.citations] == [1, 2]
    assert answer.text.endswith("[1][2]")


def test_the_same_source_keeps_its_number(numbered: Mapping[int, EvidenceSentence]) -> None:
    answer = check_answer("Lamps may be returned. [1] They may be returned within 21 days of delivery. [1]", numbered)
    assert [citation.number for citation in answer.citations] == [1, 1]


def test_text_without_markers_has_no_citation(numbered: Mapping[int, EvidenceSentence]) -> None:
    answer = check_answer("Lamps may be returned within 21 days.", numbered)
    assert (answer.citations, answer.sentences, answer.unsupported_sentences) == ((), 1, 1)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_markers_do_not_show_while_text_is_written(size: int) -> None:
    written = "Within 21 days [1]. See [the list] or a[0 and more[2, 3]"
    markers = MarkerFilter()
    shown = "".join(markers.push(written[place : place + size]) for place in range(0, len(written), size))
    assert shown + markers.flush() == "Within 21 days. See [the list] or a[0 and more"
