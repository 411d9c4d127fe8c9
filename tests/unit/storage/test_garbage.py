from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from terakoya.storage.document_repository import SqlDocumentRepository
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.garbage import collect_garbage


def test_documents_and_indexes_without_a_row_are_removed_and_all_others_kept(
    engine: Engine, data_dir: DataDir, documents: SqlDocumentRepository, tmp_path: Path
) -> None:
    collection = documents.add_collection("manuals", embedder_id="m", embedder_sha256="", dimension=3)
    upload = tmp_path / "upload"
    upload.write_bytes(b"text")
    kept = documents.add_document(
        collection.id, upload, title="", filename="a.txt", parser="plain", content_sha256="0" * 64
    )
    data_dir.index(collection.id).mkdir()
    orphans = [data_dir.document(new_id("doc")), data_dir.index(new_id("coll")), data_dir.uploads / "upload_x"]
    for orphan in orphans:
        orphan.mkdir()
    assert collect_garbage(engine, data_dir) == [path.relative_to(data_dir.root).as_posix() for path in orphans]
    assert documents.file_of(kept.id).exists()
    assert data_dir.index(collection.id).exists()
