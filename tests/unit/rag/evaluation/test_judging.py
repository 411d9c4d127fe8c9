from __future__ import annotations

import math

import pytest

from terakoya.domain.documents import Citation, Hit, Passage
from terakoya.rag.evaluation.judging import judge_ranks, ranks_of, reaches, supports, without
from terakoya.rag.evaluation.locating import Place, Target
from terakoya.rag.text_places import squeeze


def hit(document: str, start: int, end: int, text: str = "", *, ranks: tuple[int, int] = (1, 1)) -> Hit:
    passage = Passage(f"{document}-{start}", document, 1, 0, start, end, text or "x" * (end - start))
    return Hit(passage, document, 1.0, 0.9, ranks[0], 5.0, ranks[1])


def at(document: str, start: int = 0, end: int | None = None) -> Target:
    return Target((Place(document, start, end),))


def test_figures_are_the_textbook_ones() -> None:
    found = judge_ranks([2, None, 12])
    assert found.recall == pytest.approx(1 / 3)
    assert found.reciprocal_rank == 0.5
    ideal = sum(1 / math.log2(rank + 1) for rank in (1, 2, 3))
    assert found.ndcg == pytest.approx((1 / math.log2(3)) / ideal)
    assert judge_ranks([1]).ndcg == judge_ranks([1, 2]).ndcg == judge_ranks([2, 1]).ndcg == 1.0
    assert judge_ranks([None]) == judge_ranks([None, None])
    assert (judge_ranks([11]).recall, judge_ranks([11]).ndcg, judge_ranks([11]).reciprocal_rank) == (0, 0, 1 / 11)


def test_one_passage_that_holds_two_targets_is_as_good_as_it_gets() -> None:
    assert judge_ranks([1, 1]).ndcg == 1.0
    assert judge_ranks([1, 1]).recall == 1.0


def test_a_passage_is_found_where_half_of_it_is() -> None:
    target = at("a", 100, 200)
    assert reaches(hit("a", 150, 400), target)
    assert not reaches(hit("a", 151, 400), target)
    assert reaches(hit("a", 120, 130), target)  # a small passage inside
    assert not reaches(hit("b", 100, 200), target)
    assert not reaches(hit("a", 200, 300), target)
    assert reaches(hit("a", 900, 950), at("a"))


def test_without_places_the_answer_itself_is_looked_for_whatever_its_width() -> None:
    hits = [hit("a", 0, 9, "nothing here"), hit("b", 0, 9, "期限は３０ 日以内です")]
    assert ranks_of(hits, (), ("30日以内",)) == [2]
    assert ranks_of(hits, (), ("40日",)) == [None]


def test_taking_the_answer_out_ranks_the_rest_anew() -> None:
    hits = [
        hit("a", 0, 50, ranks=(1, 2)),
        hit("a", 45, 90, ranks=(3, 1)),
        hit("c", 0, 9, "it says 30日 too", ranks=(2, 3)),
        hit("b", 0, 50, ranks=(4, 4)),
        hit("b", 60, 90, ranks=(5, 6)),
    ]
    left = without(hits, [at("a", 10, 50)], ("30日",))
    assert [(one.passage.document_id, one.dense_rank, one.sparse_rank) for one in left] == [("b", 1, 1), ("b", 2, 2)]


def test_a_citation_supports_by_its_place_or_by_the_answer_in_it() -> None:
    def citation(document: str, start: int, end: int, quote: str) -> Citation:
        return Citation(1, document, 1, "p", "t", None, start, end, quote, 0, 1, "verbatim", True)

    assert supports(citation("a", 40, 60, "x"), [at("a", 50, 90)], ())
    assert not supports(citation("a", 40, 50, "x"), [at("a", 50, 90)], ())
    assert supports(citation("z", 0, 9, "within 30 days"), [at("a", 50, 90)], ("30 days",))


def test_squeezing_keeps_where_each_character_came_from() -> None:
    text = "Ａ b\n㍿ｃ"
    squeezed, origin = squeeze(text)
    assert squeezed == "ab株式会社c"
    assert origin == [0, 2, 4, 4, 4, 4, 5]
