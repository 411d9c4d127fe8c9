from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from terakoya.domain.documents import Language
from terakoya.rag.retrieval.analysis import language_of, terms_of


def shared(one: str, other: str) -> set[int]:
    return set(terms_of(one)) & set(terms_of(other))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("引っ越し", "来月引越しをする"),  # spelling variants
        ("食べる", "昼食を食べました"),  # inflection
        ("サーバ", "サーバーを再起動する"),
        ("打ち合わせ", "午後の打合せ"),
        ("３．５％", "税率は3.5%です"),  # full width
        ("3.5パーセント", "税率は3.5%です"),
        ("㎏", "重さはkgで量る"),
        ("deliveries", "The delivery was late."),
        ("café", "a CAFE nearby"),
        ("STRASSE", "Straße 5"),
        ("10 kg", "荷物は10kgまで"),
        ("10キログラム", "at most 10 kg each"),
        ("1,000円", "送料は1000円です"),
        ("2024年", "平成の次、2024年4月"),
    ],
)
def test_a_word_is_found_however_it_is_written(query: str, text: str) -> None:
    assert set(terms_of(query)) & set(terms_of(text))


@pytest.mark.parametrize("query", ["KX-200", "KX200", "kx‐200", "ＫＸ－２００", "KX", "200"])
def test_a_model_number_is_found_as_a_whole_and_by_its_parts(query: str) -> None:
    assert shared(query, "型番はKX-200です")


def test_a_model_number_is_more_than_its_parts() -> None:
    query = "KX-200"
    assert len(shared(query, "the KX-200 lamp")) > len(shared(query, "the KX-300 lamp, 200 of them"))


def test_a_number_with_its_unit_is_told_from_one_with_another() -> None:
    assert len(shared("30日", "返品は30日以内")) > len(shared("30日", "送料は30円"))
    assert len(shared("3.5%", "a rate of 3.5%")) > len(shared("3.5%", "a length of 3.5 m"))


def test_words_that_say_nothing_are_no_terms() -> None:
    assert terms_of("What is this?") == {}
    assert terms_of("それはどこで、いつですか。") == terms_of("です")
    assert terms_of("、。！？ \n\t --- ...") == {}


def test_terms_are_counted_and_fit_32_bits() -> None:
    terms = terms_of("lamp lamp LAMP")
    assert list(terms.values()) == [3]
    assert all(0 <= term < 2**32 for term in terms_of("寺子屋は江戸時代の学校です。"))


def test_terms_are_the_same_in_every_process_and_release() -> None:
    # Stored indexes depend on it: a change here needs a rebuild of every collection.
    assert terms_of("lamp") == {1281922305: 1}


def test_a_japanese_name_is_found_by_a_part_of_it() -> None:
    assert shared("子屋", "寺子屋")


def test_text_longer_than_the_tokenizer_takes_is_analysed_whole() -> None:
    text = "寺子屋で学ぶ。" * 4_000 + "蛍光灯"
    assert len(text.encode()) > 49_149
    assert set(terms_of("蛍光灯")) <= set(terms_of(text))
    assert set(terms_of("寺子屋")) <= set(terms_of("あ" * 30_000 + "寺子屋"))


@pytest.mark.parametrize(
    "text", ["\ud800寺子屋", "\x00\x01", "👩‍👩‍👧 寺子屋", "ﷺ" * 50, "e\u0301" * 50, "ก็ไทย", "한국어"]
)
def test_strange_text_is_analysed_without_complaint(text: str) -> None:
    assert terms_of(text) == terms_of(text)


@pytest.mark.parametrize("text", ["a" * 200_000, "1" * 200_000, "a-" * 100_000, "1,000" * 40_000, "." * 200_000])
def test_hostile_text_takes_time_in_proportion_to_its_length(text: str) -> None:
    started = time.thread_time()
    terms_of(text)
    assert time.thread_time() - started < 5


def test_threads_do_not_disturb_each_other() -> None:
    texts = [f"第{number}条 契約は{number}年間とし、更新する。" * 20 for number in range(16)]
    expected = [terms_of(text) for text in texts]
    barrier = threading.Barrier(8)

    def analyse(text: str) -> object:
        barrier.wait(10)
        return terms_of(text)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(analyse, texts)) == expected


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("返品はできますか？", Language.JAPANESE),
        ("KX-200の保証期間は？", Language.JAPANESE),
        ("GPU 価格", Language.JAPANESE),
        ("APIのendpointを教えて", Language.JAPANESE),
        ("Can I return it?", Language.ENGLISH),
        ("What does ありがとう mean?", Language.ENGLISH),
        ("What is 日本国憲法?", Language.ENGLISH),
        ("2024", Language.ENGLISH),
        ("", Language.ENGLISH),
    ],
)
def test_the_language_is_that_of_most_of_the_text(text: str, language: Language) -> None:
    assert language_of(text) is language
