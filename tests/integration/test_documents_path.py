"""Documents from the upload to the index and out of it again: a real database, index, supervisor and files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from document_house import EMBEDDER, DocumentHouse, document_house
from terakoya.domain.documents import DocumentStatus, IndexPoint, Vector
from terakoya.domain.retrieval import Filters
from terakoya.domain.tasks import ProcessIdentity, TaskKind, TaskState
from terakoya.exceptions import (
    CollectionNotFound,
    Conflict,
    DocumentNotFound,
    InvalidConfig,
    ModelNotFound,
    StorageFull,
    Unavailable,
    UnreadableDocument,
)
from terakoya.rag.indexing import index_keeper, indexer
from terakoya.storage.collection_repository import find_collection_row
from terakoya.storage.database import writing
from terakoya.storage.garbage import collect_garbage
from terakoya.tasks.process import boot_id

LEAVE = "有給休暇は入社から六か月後に十日付与されます。"
RETURNS = "Lamps may be returned within 21 days of delivery."
ACTIVE = frozenset(TaskState) - frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DocumentHouse]:
    house = document_house(tmp_path)
    yield house
    house.engine.dispose()


class GatedEmbedder:
    """Lets through so many batches, then waits until it is opened, or fails."""

    def __init__(self, house: DocumentHouse, batches: int = 0, error: Exception | None = None) -> None:
        self.inner = house.embedder
        self.left = batches
        self.error = error
        self.open = asyncio.Event()
        self.waiting = asyncio.Event()
        house.indexer._embedder = self

    async def embed_passages(self, model_id: str, texts: Sequence[str]) -> Vector:
        if self.left == 0:
            self.waiting.set()
            if self.error is not None:
                raise self.error
            await self.open.wait()
        self.left -= 1
        return await self.inner.embed_passages(model_id, texts)

    async def embed_queries(self, model_id: str, texts: Sequence[str]) -> Vector:
        return await self.inner.embed_queries(model_id, texts)


def long_text(sections: int) -> str:
    """Sections that each become a passage."""
    return "\n\n".join(
        f"# Rule {n}\n\nRule {n} is about bicycle number {n}. " + "It is kept. " * 40 for n in range(sections)
    )


async def test_an_added_document_is_found_with_exact_offsets(house: DocumentHouse) -> None:
    async with house.working():
        ready = await house.added(RETURNS, "返品.txt", title="Returns")
        assert (ready.status, ready.passages, ready.parser) == (DocumentStatus.READY, 1, "plain")
        await house.added(LEAVE, "leave.md")
        assert (await house.found("within how many days may lamps be returned?"))[0] == ("Returns", RETURNS)
        assert (await house.found("有給休暇"))[0][0] == "leave"
        collection = house.rows.find_collection("default")
        assert (collection.documents, collection.passages, await house.store.count(collection.id)) == (2, 2, 2)
        hit = (await house.retriever.search(collection, "lamps")).hits[0].passage
        assert house.rows.text_of(ready.id)[hit.start : hit.end] == hit.text
        phases = [event["phase"] for event in house.event_log.read(ready.task_id or "") if event["type"] == "phase"]
        assert list(dict.fromkeys(phases)) == ["parsing", "embedding", "indexing"]


async def test_the_same_file_again_is_the_same_document(house: DocumentHouse) -> None:
    async with house.working():
        first = await house.added(RETURNS)
        again = house.add(RETURNS, "other name.txt")
        assert again.is_duplicate
        assert again.document == first
        assert not house.add(RETURNS, collection=house.service.add_collection("other").name).is_duplicate


async def test_a_document_that_could_not_be_queued_is_not_kept_and_can_be_sent_again(
    house: DocumentHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise StorageFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(house.queue, "submit", full)
        with pytest.raises(StorageFull):
            house.add(LEAVE)
    assert house.service.list() == []
    assert list(house.data_dir.documents.iterdir()) == []
    again = house.add(LEAVE)
    assert not again.is_duplicate
    assert again.document.task_id is not None


async def test_collections_do_not_see_each_other(house: DocumentHouse) -> None:
    async with house.working():
        house.service.add_collection("hr")
        await house.added(LEAVE, collection="hr")
        await house.added(RETURNS)
        assert [text for _, text in await house.found("有給休暇 lamps")] == [RETURNS]
        assert [text for _, text in await house.found("有給休暇 lamps", "hr")] == [LEAVE]
        await house.service.delete_collection("hr")
        with pytest.raises(CollectionNotFound):
            await house.found("有給休暇", "hr")
        assert [text for _, text in await house.found("lamps")] == [RETURNS]
        assert len(list(house.data_dir.indexes.iterdir())) == 1


async def test_nothing_of_a_deleted_document_is_left(house: DocumentHouse) -> None:
    async with house.working():
        await house.added(RETURNS)
        secret = await house.added("The malachite safe opens with 4711.", "safe.txt")
        collection = house.rows.find_collection("default")
        await house.service.delete(secret.id)
        assert all("4711" not in text for _, text in await house.found("malachite safe 4711"))
        assert await house.store.count(collection.id, document_id=secret.id) == 0
        assert await house.store.count(collection.id) == 1
        assert house.rows.deletions_due() == []
        assert not house.data_dir.document(secret.id).exists()
        with pytest.raises(DocumentNotFound):
            house.service.get(secret.id)
    files = [path for path in house.data_dir.root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"malachite" in path.read_bytes()]


async def test_a_file_that_cannot_be_read_fails_alone_with_its_reason_and_is_tried_again_when_sent_again(
    house: DocumentHouse,
) -> None:
    async with house.working():
        bad, good = house.add("   \n \n").document, house.add(RETURNS).document
        bad, good = await house.end_of(bad), await house.end_of(good)
        assert (bad.status, bad.error_code) == (DocumentStatus.FAILED, "unreadable_document")
        assert bad.error
        assert house.tasks.find(bad.task_id or "").state is TaskState.FAILED
        assert good.status is DocumentStatus.READY
        again = house.add("   \n \n")
        assert again.is_duplicate
        assert (again.document.id, again.document.task_id) == (bad.id, bad.task_id)
        assert (await house.end_of(again.document)).status is DocumentStatus.FAILED
        assert house.tasks.find(bad.task_id or "").attempt == 2


async def test_a_cancelled_document_says_so_and_can_be_taken_up_again(house: DocumentHouse) -> None:
    gate = GatedEmbedder(house)
    async with house.working():
        document = house.add(RETURNS).document
        await asyncio.wait_for(gate.waiting.wait(), 10)
        house.queue.cancel(document.task_id or "")
        cancelled = await house.end_of(document)
        assert (cancelled.status, cancelled.error_code) == (DocumentStatus.FAILED, "cancelled")
        gate.open.set()
        assert (await house.end_of(house.add(RETURNS).document)).status is DocumentStatus.READY


async def test_deleting_a_document_at_work_stops_the_work(house: DocumentHouse) -> None:
    gate = GatedEmbedder(house)
    async with house.working():
        document = house.add(RETURNS).document
        await asyncio.wait_for(gate.waiting.wait(), 10)
        await house.service.delete(document.id)
        async with asyncio.timeout(10):
            async for _ in house.event_log.follow(document.task_id or ""):
                pass
        assert house.tasks.find(document.task_id or "").state is TaskState.CANCELLED
        assert house.rows.list_documents() == []


async def test_what_a_stopped_server_had_embedded_is_not_embedded_again(
    house: DocumentHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "EMBED_BATCH", 4)
    gate = GatedEmbedder(house, batches=2)
    async with house.working():
        document = house.add(long_text(20), "rules.md").document
        await asyncio.wait_for(gate.waiting.wait(), 20)
    passages = house.rows.find_document(document.id).passages
    assert passages >= 20
    restarted = DocumentHouse(tmp_path / "data")
    async with restarted.working():
        assert (await restarted.end_of(document)).status is DocumentStatus.READY
        assert len(restarted.embedder.embedded) == passages - 8
        assert await restarted.store.count(document.collection_id) == passages
    assert restarted.tasks.find(document.task_id or "").attempt == 1


async def test_an_index_rebuilt_from_the_database_finds_the_same(house: DocumentHouse) -> None:
    async with house.working():
        for number, text in enumerate((RETURNS, LEAVE, long_text(6))):
            await house.added(text, f"{number}.md")
        collection = house.rows.find_collection("default")
        queries = ("lamps returned", "有給休暇", "bicycle number 4")
        before = [(await house.retriever.search(collection, query)).hits for query in queries]
        embedded = len(house.embedder.embedded)
        task = house.service.rebuild("default")
        async with asyncio.timeout(10):
            async for _ in house.event_log.follow(task.id):
                pass
        assert house.tasks.find(task.id).result == {"points": collection.passages}
        assert len(house.embedder.embedded) == embedded
        after = [(await house.retriever.search(collection, query)).hits for query in queries]
        assert [[hit.passage.id for hit in hits] for hits in after] == [
            [hit.passage.id for hit in hits] for hits in before
        ]
        for hits, hits_before in zip(after, before, strict=True):
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in hits_before], abs=1e-5)


async def test_lexical_weights_follow_the_average_length(house: DocumentHouse) -> None:
    """The index that grew document by document weighs as one that is made at once."""
    async with house.working():
        for number, text in enumerate((RETURNS, long_text(8), LEAVE, long_text(3) + LEAVE)):
            await house.added(text, f"{number}.md")
        collection = house.rows.find_collection("default")
        actual = house.rows.actual_average_length(collection.id)
        assert abs(collection.average_length - actual) <= 0.1 * collection.average_length
        before = (await house.retriever.search(collection, "lamps returned")).hits[0].sparse_score or 0.0
        await house.keeper.rebuild(collection.id, lambda done, total: None)
        after = (await house.retriever.search(collection, "lamps returned")).hits[0].sparse_score or 0.0
        assert before == pytest.approx(after, rel=0.1)


async def test_at_start_a_lost_index_is_rebuilt_and_a_forgotten_document_queued(
    house: DocumentHouse, tmp_path: Path
) -> None:
    async with house.working():
        ready = await house.added(RETURNS)
    upload = house.data_dir.uploads / "u"
    upload.write_text(LEAVE)
    forgotten = house.rows.add_document(
        ready.collection_id, upload, title="", filename="b.txt", parser="plain", content_sha256="1" * 64
    )
    for path in house.data_dir.index(ready.collection_id).rglob("*"):
        path.unlink() if path.is_file() else None
    restarted = DocumentHouse(tmp_path / "data")
    restarted.service.queue_forgotten()
    async with restarted.working():
        await restarted.service.reconcile()
        tasks = restarted.tasks.list_tasks(states=ACTIVE)
        assert {task.kind for task in tasks} <= {TaskKind.INGEST, TaskKind.REBUILD}
        assert (await restarted.end_of(restarted.rows.find_document(forgotten.id))).status is DocumentStatus.READY
        for task in restarted.tasks.list_tasks(kind=TaskKind.REBUILD):
            async with asyncio.timeout(10):
                async for _ in restarted.event_log.follow(task.id):
                    pass
        assert await restarted.store.count(ready.collection_id) == 2
        assert await restarted.keeper.is_whole(ready.collection_id)
        await restarted.service.reconcile()
        assert restarted.tasks.list_tasks(states=ACTIVE) == []


async def test_a_deletion_that_the_index_was_not_told_of_is_carried_out_at_start(
    house: DocumentHouse, tmp_path: Path
) -> None:
    async with house.working():
        kept, gone = await house.added(RETURNS), await house.added(LEAVE, "b.txt")
    house.rows.delete_document(gone.id)  # and the power fails here
    restarted = DocumentHouse(tmp_path / "data")
    async with restarted.working():
        await restarted.service.reconcile()
        assert restarted.rows.deletions_due() == []
        assert await restarted.store.count(kept.collection_id, document_id=gone.id) == 0
        assert await restarted.keeper.is_whole(kept.collection_id)
        assert restarted.tasks.list_tasks(kind=TaskKind.REBUILD) == []


async def test_what_a_killed_server_was_indexing_gets_ready_once(house: DocumentHouse, tmp_path: Path) -> None:
    document = house.add(RETURNS).document
    claimed = house.tasks.claim(document.task_id or "")
    house.tasks.set_owner(claimed, ProcessIdentity(boot_id(), 2**22 + 1, 1.0))
    house.rows.set_indexing(document.id)
    restarted = DocumentHouse(tmp_path / "data")
    collect_garbage(restarted.engine, restarted.data_dir)
    restarted.service.queue_forgotten()
    async with restarted.working():
        await restarted.service.reconcile()
        assert (await restarted.end_of(document)).status is DocumentStatus.READY
        assert len(restarted.tasks.list_tasks()) == 1


async def test_the_work_waits_for_an_embedder_that_is_away_for_a_while(
    house: DocumentHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "PAUSES_SECONDS", (0.01, 0.01))
    gate = GatedEmbedder(house, error=Unavailable("the model server is starting"))
    async with house.working():
        failed = await house.added(RETURNS)
        assert (failed.status, failed.error_code) == (DocumentStatus.FAILED, "unavailable")
        gate.error = None
        gate.open.set()
        assert (await house.end_of(house.add(RETURNS).document)).status is DocumentStatus.READY


async def test_without_an_embedder_the_command_that_fetches_it_is_named(tmp_path: Path) -> None:
    house = DocumentHouse(tmp_path / "data")
    with pytest.raises(ModelNotFound, match=f"terakoya models pull {EMBEDDER}"):
        house.add(RETURNS)
    assert house.service.list("default") == []
    assert list(house.data_dir.documents.iterdir()) == []
    await house.close()


async def test_bad_input_is_refused_before_anything_is_stored(house: DocumentHouse) -> None:
    with pytest.raises(UnreadableDocument, match="empty"):
        house.add(b"")
    with pytest.raises(UnreadableDocument, match=r"\.pdf"):
        house.add(RETURNS, "a.odt")
    with pytest.raises(CollectionNotFound, match="none yet"):
        house.add(RETURNS, collection="unknown")
    with pytest.raises(InvalidConfig, match="at most 200 characters"):
        house.add(RETURNS, title="x" * 201)
    with pytest.raises(InvalidConfig, match="printed"):
        house.add(RETURNS, title="a\u202eb")
    assert house.rows.list_documents() == []
    assert list(house.data_dir.documents.iterdir()) == []
    await house.close()


async def test_a_slice_of_text_is_in_code_points_and_bounded(house: DocumentHouse) -> None:
    async with house.working():
        document = await house.added("𠮷野家の" + "あ" * 30_000, "a.txt")
        piece = house.service.text(document.id, start=0, end=2)
        assert (piece.text, piece.end, piece.characters) == ("𠮷野", 2, 30_004)
        assert len(house.service.text(document.id, start=1).text) == 20_000
        assert house.service.text(document.id, start=10**6).text == ""
        with pytest.raises(InvalidConfig):
            house.service.text(document.id, start=5, end=4)


async def test_an_open_index_refuses_a_second_process(house: DocumentHouse, tmp_path: Path) -> None:
    with house.data_dir.lock("http://x"):
        async with house.working():
            ready = await house.added(RETURNS)
            with pytest.raises(Conflict):
                house.data_dir.lock()
            second = DocumentHouse(tmp_path / "data")
            with pytest.raises(Conflict):
                await second.store.count(ready.collection_id)
            await second.close()


async def test_an_index_that_has_grown_is_optimised_and_finds_the_same(
    house: DocumentHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_keeper, "OPTIMIZE_AFTER_POINTS", 5)
    optimized: list[str] = []
    optimize = house.store.optimize

    async def watched(collection_id: str) -> None:
        await optimize(collection_id)
        optimized.append(collection_id)

    monkeypatch.setattr(house.store, "optimize", watched)
    async with house.working():
        await house.added(RETURNS)
        assert optimized == []
        document = await house.added(long_text(6), "rules.md")
        async with asyncio.timeout(30):
            while not optimized:  # noqa: ASYNC110  it is another coroutine's
                await asyncio.sleep(0.05)
        assert optimized == [document.collection_id]
        assert (await house.found("lamps returned"))[0][1] == RETURNS
        assert await house.keeper.is_whole(document.collection_id)


async def test_a_question_during_the_first_indexing_finds_nothing_yet(
    house: DocumentHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, is_embedding = asyncio.Event(), asyncio.Event()
    embed = house.embedder.embed_passages

    async def slow(model_id: str, texts: Sequence[str]) -> Vector:
        is_embedding.set()
        await may_go_on.wait()
        return await embed(model_id, texts)

    monkeypatch.setattr(house.embedder, "embed_passages", slow)
    async with house.working():
        document = house.add(RETURNS).document
        await is_embedding.wait()
        assert await house.found("lamps") == []
        may_go_on.set()
        await house.end_of(document)
        assert len(await house.found("lamps")) == 1


async def test_while_an_index_is_made_anew_nothing_is_said_to_be_absent(
    house: DocumentHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, is_writing = asyncio.Event(), asyncio.Event()
    upsert = house.store.upsert

    async def slow(collection_id: str, points: Sequence[IndexPoint]) -> None:
        is_writing.set()
        await may_go_on.wait()
        await upsert(collection_id, points)

    async with house.working():
        await house.added(RETURNS)
        monkeypatch.setattr(house.store, "upsert", slow)
        cancelled = house.service.rebuild("default")
        await is_writing.wait()
        with pytest.raises(Unavailable, match="made anew"):
            await house.found("lamps")
        house.queue.cancel(cancelled.id)
        async for _ in house.event_log.follow(cancelled.id):
            pass
        with pytest.raises(Unavailable, match="terakoya documents rebuild default"):
            await house.found("lamps")
        may_go_on.set()
        again = house.service.rebuild("default")
        async for _ in house.event_log.follow(again.id):
            pass
        assert len(await house.found("lamps")) == 1


async def test_a_damaged_index_with_a_deletion_due_is_rebuilt_at_start_and_holds_up_no_other(
    house: DocumentHouse, tmp_path: Path
) -> None:
    async with house.working():
        kept, gone = await house.added(RETURNS), await house.added(LEAVE, "leave.md")
        house.service.add_collection("other")
        other = await house.added(LEAVE, collection="other")
    house.rows.delete_document(gone.id)
    house.rows.delete_document(other.id)
    (house.data_dir.index(kept.collection_id) / "current.json").write_text("{")
    restarted = DocumentHouse(tmp_path / "data")
    async with restarted.working():
        await restarted.service.reconcile()
        assert await restarted.store.count(other.collection_id) == 0
        rebuild = restarted.service.rebuild("default")
        async for _ in restarted.event_log.follow(rebuild.id):
            pass
        assert [text for _, text in await restarted.found("lamps")] == [RETURNS]


async def test_tags_are_searched_by_at_once_and_after_a_rebuild(house: DocumentHouse) -> None:
    async with house.working():
        first = await house.added("Lamps may be returned.", "first.txt")
        await house.added("Lamps may be repaired.", "second.txt")
        tagged = await house.service.set_tags(first.id, [" ＨＲ ", "HR", "人事"])
        assert tagged.tags == ("HR", "人事")
        collection = house.rows.find_collection("default")
        for _ in range(2):
            found = await house.retriever.search(collection, "lamps", filters=Filters(tags=("人事",)))
            assert [hit.passage.document_id for hit in found.hits] == [first.id]
            await house.keeper.rebuild(collection.id, lambda done, total: None)
        with pytest.raises(InvalidConfig, match="at most 20 tags"):
            await house.service.set_tags(first.id, [str(number) for number in range(21)])


async def test_tags_of_a_document_that_became_ready_meanwhile_are_in_the_index(house: DocumentHouse) -> None:
    async with house.working():
        queued = house.add("Lamps may be returned.").document
        await house.end_of(queued)
        await house.keeper.set_tags(queued, ("hr",))
        collection = house.rows.find_collection("default")
        found = await house.retriever.search(collection, "lamps", filters=Filters(tags=("hr",)))
        assert [hit.passage.document_id for hit in found.hits] == [queued.id]


async def test_an_index_of_an_earlier_version_is_made_anew_at_start(house: DocumentHouse) -> None:
    async with house.working():
        await house.added("Lamps may be returned.", "first.txt")
        with writing(house.engine) as session:
            find_collection_row(session, "default").can_filter = False
        await house.service.reconcile()
        (task,) = house.tasks.list_tasks(kind=TaskKind.REBUILD)
        async for _ in house.event_log.follow(task.id):
            pass
        assert house.rows.find_collection("default").can_filter
