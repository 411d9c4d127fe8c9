from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from terakoya.domain.documents import CollectionInfo, DocumentInfo, DocumentStatus, Language, Passage, Terms
from terakoya.domain.tasks import TaskKind, TaskState
from terakoya.exceptions import CollectionNotFound, Conflict, DocumentNotFound, InvalidConfig, NotFound
from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.task_repository import SqlTaskRepository

TEXT = "経費は月末までに申請する。Receipts are kept for seven years."
TERMS: Terms = {7: 2, 4_000_000_000: 1}


@pytest.fixture
def manuals(documents: SqlDocumentRepository) -> CollectionInfo:
    return documents.add_collection("Manuals", embedder_id=new_id("model"), embedder_sha256="0" * 64, dimension=3)


def add(
    documents: SqlDocumentRepository,
    folder: Path,
    collection: CollectionInfo,
    content: bytes = b"text",
    title: str = "",
) -> DocumentInfo:
    upload = folder / "upload"
    upload.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return documents.add_document(
        collection.id, upload, title=title, filename="経費.v2.txt", parser="plain", content_sha256=sha256
    )


def parse(
    documents: SqlDocumentRepository, document: DocumentInfo, passages: int = 2, title: str | None = None
) -> None:
    cut = [
        Passage(f"{document.id}-{n}", document.id, 1, n, n, n + 5, TEXT[n : n + 5], 1, ("章", "節"))
        for n in range(passages)
    ]
    documents.save_parsed(
        document.id,
        text=TEXT,
        title=title,
        language=Language.JAPANESE,
        pages=2,
        notices=["converted"],
        passages=[(passage, TERMS) for passage in cut],
    )


def test_a_collection_is_found_by_id_and_by_name_in_any_case(
    documents: SqlDocumentRepository, manuals: CollectionInfo
) -> None:
    assert documents.find_collection("ｍａｎｕａｌｓ") == documents.find_collection(manuals.id) == manuals
    assert documents.list_collections() == [manuals]
    with pytest.raises(Conflict, match="already a collection 'Manuals'"):
        documents.add_collection("manuals", embedder_id="m", embedder_sha256="", dimension=3)
    with pytest.raises(InvalidConfig):
        documents.add_collection("../x", embedder_id="m", embedder_sha256="", dimension=3)
    with pytest.raises(CollectionNotFound, match="did you mean 'Manuals'"):
        documents.find_collection("manual")


def test_an_added_document_is_on_disk_and_queued(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path
) -> None:
    added = add(documents, tmp_path, manuals, "本文".encode())
    assert added.status is DocumentStatus.QUEUED
    assert added.title == "経費.v2"
    assert documents.find_document(added.id) == added
    assert documents.list_documents() == documents.list_documents(manuals.id) == [added]
    assert documents.file_of(added.id).read_bytes() == "本文".encode()
    assert documents.text_of(added.id) == ""
    assert not (tmp_path / "upload").exists()
    assert documents.find_collection("manuals").documents == 1


def test_the_same_bytes_are_one_document_a_collection(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path, data_dir: DataDir
) -> None:
    first = add(documents, tmp_path, manuals)
    with pytest.raises(Conflict, match=first.id):
        add(documents, tmp_path, manuals)
    assert documents.find_duplicate(manuals.id, first.content_sha256) == first
    assert documents.find_duplicate(manuals.id, "0" * 64) is None
    other = documents.add_collection("other", embedder_id="m", embedder_sha256="", dimension=3)
    add(documents, tmp_path, other)
    assert len(list(data_dir.documents.iterdir())) == 2


def test_what_was_parsed_is_read_back_exactly_and_replaced_by_the_next_attempt(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path
) -> None:
    document = add(documents, tmp_path, manuals)
    parse(documents, document, passages=3, title="経費規程")
    parse(documents, document, passages=2, title="another")
    info = documents.find_document(document.id)
    assert (info.title, info.language, info.pages, info.characters) == ("経費規程", Language.JAPANESE, 2, len(TEXT))
    assert (info.passages, info.notices) == (2, ("converted",))
    assert documents.text_of(document.id) == TEXT
    documents.set_ready(document.id)
    found = documents.passages([f"{document.id}-{n}" for n in range(3)])
    assert sorted(found) == [f"{document.id}-0", f"{document.id}-1"]
    passage = found[f"{document.id}-1"]
    assert passage.text == TEXT[passage.start : passage.end]
    assert passage.heading == ("章", "節")
    assert documents.titles([document.id, "gone"]) == {document.id: "経費規程"}
    assert documents.actual_average_length(manuals.id) == 3.0


def test_a_given_title_is_kept(documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path) -> None:
    document = add(documents, tmp_path, manuals, title="Given")
    parse(documents, document, title="Found")
    assert documents.find_document(document.id).title == "Given"


def test_embeddings_come_back_bit_for_bit_and_only_missing_ones_are_asked_for(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path
) -> None:
    document = add(documents, tmp_path, manuals)
    parse(documents, document, passages=300)
    first = documents.passages_to_embed(document.id, limit=2)
    assert [passage.ordinal for passage in first] == [0, 1]
    vector = np.array([0.6, -0.8, 1e-30], dtype=np.float32)
    documents.save_embeddings({passage.id: vector for passage in first} | {"gone": vector})
    assert [passage.ordinal for passage in documents.passages_to_embed(document.id, limit=1)] == [2]
    documents.save_embeddings({passage.id: vector for passage in documents.passages_to_embed(document.id, limit=300)})
    indexed = list(documents.indexed_passages(manuals.id))
    assert len(indexed) == len({passage.id for passage in indexed}) == 300
    assert indexed[0].terms == TERMS
    np.testing.assert_array_equal(indexed[0].embedding, vector)
    assert list(documents.indexed_passages(manuals.id, "another")) == []


def test_passages_are_hidden_until_their_document_is_ready(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path
) -> None:
    document = add(documents, tmp_path, manuals)
    parse(documents, document)
    documents.set_indexing(document.id)
    assert documents.passages([f"{document.id}-0"]) == {}
    documents.set_failed(document.id, error="no text", error_code="unreadable_document")
    failed = documents.find_document(document.id)
    assert (failed.status, failed.error, failed.error_code) == (DocumentStatus.FAILED, "no text", "unreadable_document")
    documents.set_ready(document.id)
    assert list(documents.passages([f"{document.id}-0"])) == [f"{document.id}-0"]
    assert documents.find_document(document.id).error is None


def test_a_deleted_document_leaves_no_text_and_a_note_for_the_index(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path, data_dir: DataDir
) -> None:
    secret = "孔雀石の金庫の番号は四七一一".encode()
    document = add(documents, tmp_path, manuals, secret)
    documents.save_parsed(
        document.id, text=secret.decode(), title=None, language=Language.JAPANESE, pages=None, notices=[], passages=[]
    )
    documents.set_ready(document.id)
    assert any(secret in path.read_bytes() for path in data_dir.root.glob("terakoya.db*"))
    documents.delete_document(document.id)
    assert not any(secret in path.read_bytes() for path in data_dir.root.rglob("*") if path.is_file())
    assert documents.deletions_due() == [(manuals.id, document.id)]
    documents.deletion_done(document.id)
    assert documents.deletions_due() == []
    documents.set_failed(document.id, error="late", error_code="late")
    for late in (documents.set_ready, documents.set_indexing, documents.text_of, documents.delete_document):
        with pytest.raises(DocumentNotFound, match=document.id):
            late(document.id)
    with pytest.raises(DocumentNotFound):
        parse(documents, document)
    with pytest.raises(NotFound):
        documents.file_of("../../etc/passwd")


def test_a_deleted_collection_takes_its_documents_along_and_no_others(
    documents: SqlDocumentRepository, manuals: CollectionInfo, tmp_path: Path, data_dir: DataDir
) -> None:
    other = documents.add_collection("other", embedder_id="m", embedder_sha256="", dimension=3)
    kept = add(documents, tmp_path, other)
    for content in (b"one", b"two"):
        parse(documents, add(documents, tmp_path, manuals, content), passages=1)
    documents.delete_document(documents.list_documents(manuals.id)[0].id)
    documents.delete_collection(manuals.id)
    assert [path.name for path in data_dir.documents.iterdir()] == [kept.id]
    assert documents.list_documents() == [kept]
    assert documents.deletions_due() == [(manuals.id, manuals.id)]
    with pytest.raises(CollectionNotFound):
        documents.delete_collection(manuals.id)


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELLED])
def test_a_document_whose_task_ended_badly_is_failed_until_the_task_is_queued_again(
    documents: SqlDocumentRepository,
    tasks: SqlTaskRepository,
    manuals: CollectionInfo,
    tmp_path: Path,
    state: TaskState,
) -> None:
    document = add(documents, tmp_path, manuals)
    task = tasks.add(TaskKind.INGEST, "x", {}, {})
    documents.set_task(document.id, task.id)
    assert documents.find_document(document.id).status is DocumentStatus.QUEUED
    tasks.finish(task, state)
    failed = documents.find_document(document.id)
    assert failed.status is DocumentStatus.FAILED
    assert failed.error
    tasks.requeue(task.id)
    assert documents.find_document(document.id).status is DocumentStatus.QUEUED


def test_a_failed_document_waits_again_as_soon_as_its_task_is_resumed(
    documents: SqlDocumentRepository, tasks: SqlTaskRepository, manuals: CollectionInfo, tmp_path: Path
) -> None:
    document = add(documents, tmp_path, manuals)
    task = tasks.claim(tasks.add(TaskKind.INGEST, "x", {}, {}).id)
    documents.set_task(document.id, task.id)
    documents.set_indexing(document.id)
    documents.set_failed(document.id, error="it has no text", error_code="unreadable_document")
    tasks.finish(task, TaskState.FAILED, error="it has no text")
    assert documents.find_document(document.id).status is DocumentStatus.FAILED
    tasks.requeue(task.id)
    again = documents.find_document(document.id)
    assert (again.status, again.error, again.error_code) == (DocumentStatus.QUEUED, None, None)
