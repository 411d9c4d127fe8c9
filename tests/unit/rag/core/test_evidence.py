from __future__ import annotations

from collections.abc import Callable

from tests.unit.rag.core.conftest import HANDBOOK, REGULATIONS

from terakoya.domain.documents import Hit
from terakoya.rag.core.evidence import Rarity, evidence_sentences, similarity
from terakoya.rag.retrieval.analysis import terms_of


def test_every_sentence_is_its_documents_text_at_its_offsets(hit_of: Callable[..., Hit]) -> None:
    document = f"Preface.\n\n{HANDBOOK}\n\n{REGULATIONS}"
    hits = [hit_of(document[10:], start=10), hit_of(document[10:60], start=10)]
    found = evidence_sentences(hits)
    assert len(found) >= 6
    assert all(document[one.start : one.end] == one.text for one in found)


def test_titles_and_headings_are_not_sentences(hit_of: Callable[..., Hit]) -> None:
    hit = hit_of("## 1. Returns\n\nLamps may be returned.\n\n---\n\nHandbook", heading=("Returns",))
    assert [one.text for one in evidence_sentences([hit])] == ["Lamps may be returned."]


def test_a_place_in_a_document_is_one_sentence_however_many_passages_hold_it(hit_of: Callable[..., Hit]) -> None:
    hits = [hit_of("One is here. Two is here.", start=0), hit_of("Two is here. Three is here.", start=13)]
    found = evidence_sentences(hits)
    assert [(one.text, one.rank) for one in found] == [
        ("One is here.", 0),
        ("Two is here.", 0),
        ("Three is here.", 1),
    ]


def test_a_question_in_a_document_is_the_context_of_what_follows(hit_of: Callable[..., Hit]) -> None:
    first, second = evidence_sentences([hit_of("送料はいくらですか？\n全国一律500円です。", title="よくある質問")])
    assert first.is_question
    assert not second.is_question
    assert "送料" in second.context


def test_a_short_line_over_others_is_the_context_of_all_of_them(hit_of: Callable[..., Hit]) -> None:
    text = "秋の試乗会\n10月17日に開く。予算は38万円。\n部品の仕入れ\n7月から上がる。"
    label, date, budget, other, price = evidence_sentences([hit_of(text, title="議事録")])
    assert (label.is_label, other.is_label) == (True, True)
    assert not any(one.is_label for one in (date, budget, price))
    assert "試乗会" in date.context
    assert "試乗会" in budget.context
    assert "試乗会" not in price.context


def test_the_last_line_and_items_of_a_list_are_no_labels(hit_of: Callable[..., Hit]) -> None:
    found = evidence_sentences([hit_of("- 2 laptops\n- 1 projector\nReturn by Friday")])
    assert not any(one.is_label for one in found)


def test_the_mark_of_an_item_is_not_quoted(hit_of: Callable[..., Hit]) -> None:
    text = (
        "- 45 分間操作がないと切れます。\n1. First, open it.\n(2) 祖父母の死亡 2 日\n・鍵をかける。\n3.5 bar is enough."
    )
    found = evidence_sentences([hit_of(text, start=7)])
    assert [one.text for one in found] == [
        "45 分間操作がないと切れます。",
        "First, open it.",
        "祖父母の死亡 2 日",
        "鍵をかける。",
        "3.5 bar is enough.",
    ]
    assert all(text[one.start - 7 : one.end - 7] == one.text for one in found)


def test_coverage_weighs_what_few_texts_have() -> None:
    common, rare = terms_of("delivery lamp"), terms_of("delivery")
    texts = [terms_of(text) for text in ("delivery lamp", "delivery chair", "delivery table", "delivery rug")]
    rarity = Rarity(texts)
    assert rarity.coverage(common, texts[0]) == 1.0
    assert rarity.coverage(common, rare) < 0.3
    assert rarity.coverage(common, rare, context=terms_of("lamp")) > 0.4
    assert rarity.coverage({}, texts[0]) == 0.0


def test_similarity_is_the_share_of_common_terms() -> None:
    assert similarity({1: 2, 2: 1}, {2: 5, 3: 1}) == 1 / 3
    assert similarity({}, {}) == 0.0
