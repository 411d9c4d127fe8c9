"""Where a passage is lost, stage by stage, over a real index; the embedder stands in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from document_house import DocumentHouse, document_house
from terakoya.domain.documents import DocumentInfo
from terakoya.domain.retrieval import Filters, RetrievalSettings
from terakoya.exceptions import InvalidConfig
from terakoya.rag.core.speaking import Question
from terakoya.rag.core.why import PassageTracker, Whereabouts

ASKED = "Within how many days may lamps be returned?"


class Shop:
    def __init__(self, house: DocumentHouse, answer: DocumentInfo, other: DocumentInfo) -> None:
        self.house, self.answer, self.other = house, answer, other
        self.tracker = PassageTracker(documents=house.rows, retriever=house.retriever, embedder=house.embedder)

    async def follow(self, document: DocumentInfo, asked: str = ASKED, **options: Any) -> Whereabouts:
        quote = options.pop("quote", None)
        question = Question(self.house.rows.find_collection("default"), asked, **options)
        return await self.tracker.follow(question, document.id, quote=quote)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    house = document_house(tmp_path)
    async with house.working():
        answer = await house.added("Lamps may be returned within 21 days of delivery.", "returns.txt")
        other = await house.added("The canteen opens at noon on weekdays.", "canteen.txt")
        for number in range(12):
            await house.added(f"Lamps of series {number} may be repaired, rarely returned, by hand.", f"l{number}.txt")
        yield Shop(house, answer, other)


async def test_what_is_quoted_was_lost_nowhere(shop: Shop) -> None:
    found = await shop.follow(shop.answer)
    assert (found.lost_at, found.fused_rank) == ("nowhere", 1)
    assert found.sentence_score == found.chosen_score
    assert (await shop.follow(shop.answer, quote="within 21\ndays")).lost_at == "nowhere"


async def test_ranks_are_those_of_the_search(shop: Shop) -> None:
    found = await shop.follow(shop.other)
    question = Question(shop.house.rows.find_collection("default"), ASKED)
    dense, sparse = await shop.house.retriever.rankings(question.collection, ASKED, candidates=50)
    assert found.dense_rank == 1 + [hit.id for hit in dense].index(str(found.passage_id))
    assert (found.sparse_rank, str(found.passage_id) in {hit.id for hit in sparse}) == (None, False)
    assert (found.lost_at, "are shown" in found.reason) == ("top_k", True)


async def test_what_no_search_hands_on_is_lost_in_the_search(shop: Shop) -> None:
    shop.house.rows.set_retrieval("default", RetrievalSettings(candidates=10))
    found = await shop.follow(shop.other, top_k=5)
    assert (found.lost_at, found.fused_rank) == ("search", None)
    assert "number 14" in found.reason
    assert "it shares none with the question" in found.reason


async def test_filters_and_documents_that_are_not_ready_are_named(shop: Shop) -> None:
    found = await shop.follow(shop.answer, filters=Filters(language=("ja",), tags=("x",)))
    assert (found.lost_at, "'language'" in found.reason) == ("filter", True)
    found = await shop.follow(shop.answer, filters=Filters.of({"date_to": "2001-01-01"}))
    assert "'date_to'" in found.reason
    shop.house.rows.set_failed(shop.other.id, error="broken", error_code="x")
    found = await shop.follow(shop.other)
    assert (found.lost_at, found.reason) == ("document", "the document is failed, not ready")


async def test_what_is_not_there_cannot_be_missed(shop: Shop) -> None:
    with pytest.raises(InvalidConfig, match="no passage of 'returns' holds 'chairs' as a whole"):
        await shop.follow(shop.answer, quote="chairs")
    elsewhere = shop.house.service.add_collection("elsewhere")
    question = Question(elsewhere, ASKED)
    with pytest.raises(InvalidConfig, match="not in the collection 'elsewhere'"):
        await shop.tracker.follow(question, shop.answer.id)
