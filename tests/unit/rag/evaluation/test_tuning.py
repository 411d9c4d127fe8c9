from __future__ import annotations

from terakoya.domain.documents import StoreHit
from terakoya.domain.retrieval import RetrievalSettings
from terakoya.rag.evaluation.tuning import Rankings, grid, tune

OWN = RetrievalSettings("weighted", dense_weight=0.9)


def rankings(half: int, *, by_words: bool) -> Rankings:
    """One search finds it first, the other last."""
    wrong = [StoreHit(f"wrong{number}", 0.9 - number / 100) for number in range(12)]
    right = [StoreHit("right", 0.95), *wrong[:5]]
    dense, sparse = (wrong, right) if by_words else (right, wrong)
    return Rankings(dense, sparse, (frozenset({"right"}),), half)


def test_what_all_questions_want_is_found_and_said_to_be_better() -> None:
    report = tune([rankings(number % 2, by_words=True) for number in range(24)], OWN)
    assert report["suggested"]["dense_weight"] < 0.9
    assert report["comparison"]["ndcg_at_10"]["verdict"] == "better"


def test_what_only_one_half_wants_is_no_gain_on_the_other() -> None:
    halves = [rankings(number % 2, by_words=number % 2 == 0) for number in range(24)]
    even = RetrievalSettings("rrf")
    report = tune(halves, even)
    assert report["comparison"]["ndcg_at_10"]["verdict"] != "better"
    assert report["comparison"]["ndcg_at_10"]["difference"]["value"] <= 0


def test_the_present_settings_come_first_so_that_a_tie_changes_nothing() -> None:
    assert grid(OWN)[0] == OWN
    assert len(grid(OWN)) == len(set(grid(OWN)))
    missed = [Rankings([StoreHit("x", 1.0)], [], (frozenset(),), number % 2) for number in range(20)]
    assert RetrievalSettings.of(tune(missed, OWN)["suggested"]) == OWN
