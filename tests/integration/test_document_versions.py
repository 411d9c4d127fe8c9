"""A document's versions and its deletion, over each of the two vector stores: what is asked, listed, and gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from document_house import DocumentHouse, document_house
from terakoya.domain.documents import DocumentStatus
from terakoya.domain.retrieval import Filters
from terakoya.exceptions import Conflict, DocumentNotFound, Unavailable
from terakoya.storage.vector_store.server import ServerVectorStore

OLD = "Lamps may be returned within 21 days of delivery. Zebra."
NEW = "Lamps may be returned within 30 days of delivery. Giraffe."


@pytest.fixture(params=["edge", "server"])
async def house(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[DocumentHouse]:
    store = ServerVectorStore(AsyncQdrantClient(":memory:")) if request.param == "server" else None
    house = document_house(tmp_path, store)
    yield house
    house.engine.dispose()


pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


async def _index_is_clean(house: DocumentHouse) -> None:
    async with asyncio.timeout(10):
        while house.rows.deletions_due():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_new_version_is_asked_instead_and_the_former_one_stays_listed(house: DocumentHouse) -> None:
    async with house.working():
        old = await house.added(OLD, "a.txt", source="rules/a.txt")
        new = await house.added(NEW, "a.txt", source="rules/a.txt")
        assert (new.version, new.replaces_id, new.status) == (2, old.id, DocumentStatus.READY)
        former = house.rows.find_document(old.id)
        assert (former.status, former.replaced_by_id, former.passages) == (DocumentStatus.REPLACED, new.id, 0)
        assert [text for _, text in await house.found("lamps zebra 21 days")] == [NEW]
        assert [info.id for info in house.service.list("default")] == [new.id]
        assert [info.id for info in house.service.versions(old.id)] == [new.id, old.id]
        assert house.service.text(old.id).text == OLD
        assert house.rows.file_of(old.id).read_text() == OLD
        await _index_is_clean(house)
        collection = house.rows.find_collection("default")
        assert (collection.documents, collection.passages, await house.store.count(collection.id)) == (1, 1, 1)
        assert await house.keeper.is_whole(collection.id)
        back = await house.added(OLD, "a.txt", source="rules/a.txt")  # the first content again
        assert (back.version, back.status) == (3, DocumentStatus.READY)
        assert [text for _, text in await house.found("lamps")] == [OLD]


async def test_a_new_version_keeps_the_tags_it_is_chosen_by(house: DocumentHouse) -> None:
    async with house.working():
        old = await house.added(OLD, "a.txt", source="a.txt")
        await house.service.set_tags(old.id, ["hr"])
        new = await house.added(NEW, "a.txt", source="a.txt")
        assert new.tags == ("hr",)
        collection = house.rows.find_collection("default")
        found = await house.retriever.search(collection, "lamps", filters=Filters(tags=("hr",)))
        assert [hit.passage.document_id for hit in found.hits] == [new.id]


async def test_a_version_that_cannot_be_read_leaves_the_former_one_in_place(house: DocumentHouse) -> None:
    async with house.working():
        old = await house.added(OLD, "a.html", source="a.html")
        broken = await house.added("<script></script>", "a.html", source="a.html")
        assert broken.status is DocumentStatus.FAILED
        assert [text for _, text in await house.found("lamps")] == [OLD]
        receipt = await house.service.delete(broken.id)
        assert receipt.versions == (2,)
        assert [text for _, text in await house.found("lamps")] == [OLD]
        new = await house.added(NEW, "a.html", source="a.html")
        assert (new.version, new.replaces_id) == (2, old.id)
        assert [text for _, text in await house.found("lamps")] == [NEW]


async def test_deleting_tells_what_went_and_nothing_of_it_is_found(house: DocumentHouse) -> None:
    async with house.working():
        old = await house.added(OLD, "a.txt", source="a.txt")
        new = await house.added(NEW, "a.txt", source="a.txt")
        other = await house.added("Chairs may be returned within 9 days.", "b.txt")
        await _index_is_clean(house)
        receipt = await house.service.delete(new.id)
        assert (receipt.versions, receipt.files, receipt.file_bytes) == ((2, 1), 2, len(OLD) + len(NEW))
        assert (receipt.characters, receipt.passages, receipt.vectors) == (len(OLD) + len(NEW), 1, 1)
        assert receipt.index_cleared
        for query in ("lamps", "zebra", "giraffe", "30 days of delivery"):
            assert all("Lamps" not in text for _, text in await house.found(query))
        for document_id in (old.id, new.id):
            with pytest.raises(DocumentNotFound):
                house.service.text(document_id)
            assert not house.data_dir.document(document_id).exists()
        collection = house.rows.find_collection("default")
        assert await house.store.count(collection.id) == house.rows.find_document(other.id).passages == 1
    database = house.data_dir.database
    stored = b"".join(path.read_bytes() for path in database.parent.glob(database.name + "*"))
    assert b"Giraffe" not in stored
    assert b"Zebra" not in stored


async def test_a_former_version_is_deleted_alone(house: DocumentHouse) -> None:
    async with house.working():
        old = await house.added(OLD, "a.txt", source="a.txt")
        middle = await house.added(NEW, "a.txt", source="a.txt")
        newest = await house.added("Lamps may not be returned.", "a.txt", source="a.txt")
        assert (await house.service.delete(middle.id)).versions == (2,)
        assert [info.id for info in house.service.versions(newest.id)] == [newest.id, old.id]
        assert len(await house.found("lamps")) == 1


async def test_content_that_is_about_to_be_replaced_is_not_taken_for_a_copy(house: DocumentHouse) -> None:
    house.add(OLD, "a.txt", source="a.txt")
    house.add(NEW, "a.txt", source="a.txt")
    with pytest.raises(Conflict, match="version 1 has the same content and is asked until version 2 is ready"):
        house.add(OLD, "a.txt", source="a.txt")
    assert len(list(house.data_dir.documents.iterdir())) == 2


async def test_an_index_that_is_away_is_said_in_the_receipt_and_told_later(
    house: DocumentHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terakoya.rag.service.FORGET_SECONDS", 0.2)
    monkeypatch.setattr("terakoya.rag.indexing.index_keeper.RETRY_SECONDS", 0.05)

    async def away(*_: object, **__: object) -> int:
        raise Unavailable("the vector store is away")

    async with house.working():
        document = await house.added(OLD, "a.txt")
        with monkeypatch.context() as gone:
            gone.setattr(house.store, "delete_document", away)
            gone.setattr(house.store, "count", away)
            receipt = await house.service.delete(document.id)
            assert (receipt.vectors, receipt.index_cleared) == (None, False)
            assert await house.found("lamps") == []
        await _index_is_clean(house)
        assert await house.store.count(house.rows.find_collection("default").id) == 0
