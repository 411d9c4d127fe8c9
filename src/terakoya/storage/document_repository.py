"""Documents in the database, their original files in the data folder: the DocumentRepository, with collections and
passages beside. A file is on disk before its row, and goes after it; what a crash leaves between is garbage at start.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from terakoya.domain.documents import DocumentInfo, DocumentStatus, Language, Passage, Terms
from terakoya.domain.tasks import FINAL_STATES, TaskState
from terakoya.exceptions import Conflict, DocumentNotFound
from terakoya.storage.collection_repository import SqlCollections, find_collection_row
from terakoya.storage.database import forget_deleted, reading, writing
from terakoya.storage.evaluation_repository import forget_document
from terakoya.storage.files import move_file_durably, new_id, sync_directory
from terakoya.storage.passage_repository import SqlPassages, passage_row, shown_title
from terakoya.storage.tables import DocumentRow, DocumentTextRow, IndexDeletionRow, PassageRow, TaskRow

ORIGINAL_FILE = "original"
_UNFINISHED = frozenset({DocumentStatus.QUEUED, DocumentStatus.INDEXING})
_GOES_ON = frozenset(TaskState) - FINAL_STATES
_IS_NEWEST = DocumentRow.status != DocumentStatus.REPLACED
_ENDED_BADLY = frozenset({TaskState.FAILED, TaskState.CANCELLED})


class SqlDocumentRepository(SqlCollections, SqlPassages):
    """A document whose task failed or was cancelled is shown as failed, whatever its own row still says, and one that
    failed as queued once its task is resumed, by whatever way: the task's state is recorded in one place."""

    # -- documents --

    def add_document(
        self,
        collection_id: str,
        upload: Path,
        *,
        title: str,
        filename: str,
        parser: str,
        content_sha256: str,
        source: str | None = None,
        replaces: DocumentInfo | None = None,
    ) -> DocumentInfo:
        row = DocumentRow(
            id=new_id("doc"),
            collection_id=collection_id,
            title=title,
            filename=filename,
            parser=parser,
            size_bytes=upload.stat().st_size,
            content_sha256=content_sha256,
            version=1 if replaces is None else replaces.version + 1,
            status=DocumentStatus.QUEUED,
            created_at=datetime.now(UTC),
            characters=0,
            notices=[],
            source=source,
            replaces_id=None if replaces is None else replaces.id,
            recognised=[],
            tags=[] if replaces is None else list(replaces.tags),
        )
        folder = self._data_dir.document(row.id)
        folder.mkdir()
        try:
            move_file_durably(upload, folder / ORIGINAL_FILE)
            sync_directory(folder.parent)
            with writing(self._engine) as session:
                find_collection_row(session, collection_id)
                _refuse_duplicate(session, row)
                session.add(row)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return _info(row, 0, None)

    def find_duplicate(self, collection_id: str, content_sha256: str) -> DocumentInfo | None:
        same = _documents().where(
            DocumentRow.collection_id == collection_id, DocumentRow.content_sha256 == content_sha256, _IS_NEWEST
        )
        with reading(self._engine) as session:
            found = session.execute(same).one_or_none()
            return None if found is None else _read(found)

    def find_document(self, document_id: str) -> DocumentInfo:
        with reading(self._engine) as session:
            found = session.execute(_documents().where(DocumentRow.id == document_id)).one_or_none()
            if found is None:
                raise _not_found(document_id)
            return _read(found)

    def find_source(self, collection_id: str, source: str) -> DocumentInfo | None:
        from_there = _documents().where(DocumentRow.collection_id == collection_id, DocumentRow.source == source)
        with reading(self._engine) as session:
            newest = from_there.where(_IS_NEWEST).order_by(DocumentRow.version.desc(), DocumentRow.id.desc()).limit(1)
            found = session.execute(newest).one_or_none()
            return None if found is None else _read(found)

    def versions(self, document_id: str) -> Sequence[DocumentInfo]:
        with reading(self._engine) as session:
            ids = _line(session, _find(session, document_id))
            of_it = (
                _documents().where(DocumentRow.id.in_(ids)).order_by(DocumentRow.version.desc(), DocumentRow.id.desc())
            )
            return [_read(found) for found in session.execute(of_it)]

    def list_documents(
        self, collection_id: str | None = None, *, limit: int = 1000, replaced: bool = False
    ) -> Sequence[DocumentInfo]:
        query = _documents().order_by(DocumentRow.id.desc()).limit(limit)
        if not replaced:
            query = query.where(_IS_NEWEST)
        if collection_id is not None:
            query = query.where(DocumentRow.collection_id == collection_id)
        with reading(self._engine) as session:
            return [_read(found) for found in session.execute(query)]

    def unfinished_documents(self) -> Sequence[DocumentInfo]:
        query = _documents().where(DocumentRow.status.in_(_UNFINISHED)).order_by(DocumentRow.id)
        with reading(self._engine) as session:
            found = [_read(row) for row in session.execute(query)]
            return [document for document in found if document.status in _UNFINISHED]

    def file_of(self, document_id: str) -> Path:
        return self._data_dir.document(self.find_document(document_id).id) / ORIGINAL_FILE

    def text_of(self, document_id: str) -> str:
        with reading(self._engine) as session:
            _find(session, document_id)
            stored = session.get(DocumentTextRow, document_id)
            return "" if stored is None else stored.text

    # -- what becomes of them --

    def set_task(self, document_id: str, task_id: str) -> None:
        with writing(self._engine) as session:
            row = _find(session, document_id)
            row.task_id = task_id
            if row.status == DocumentStatus.FAILED:  # else the task may be at work already
                row.status, row.error, row.error_code = DocumentStatus.QUEUED, None, None

    def set_indexing(self, document_id: str) -> None:
        with writing(self._engine) as session:
            row = _find(session, document_id)
            row.status, row.error, row.error_code = DocumentStatus.INDEXING, None, None

    def set_failed(self, document_id: str, *, error: str, error_code: str) -> None:
        """One that is gone has nothing to be told of."""
        with writing(self._engine) as session:
            row = session.get(DocumentRow, document_id)
            if row is not None:
                row.status, row.error, row.error_code = DocumentStatus.FAILED, error, error_code

    def save_parsed(
        self,
        document_id: str,
        *,
        text: str,
        title: str | None,
        language: Language,
        pages: int | None,
        notices: Sequence[str],
        passages: Sequence[tuple[Passage, Terms]],
        recognised: Sequence[tuple[int, float]] = (),
    ) -> None:
        with writing(self._engine) as session:
            row = _find(session, document_id)
            row.title = row.title or title or ""
            row.language, row.pages, row.notices, row.characters = language, pages, list(notices), len(text)
            row.recognised = [list(page) for page in recognised]
            session.execute(delete(DocumentTextRow).where(DocumentTextRow.document_id == document_id))
            session.execute(delete(PassageRow).where(PassageRow.document_id == document_id))
            session.add(DocumentTextRow(document_id=document_id, text=text))
            session.add_all(passage_row(passage, terms) for passage, terms in passages)

    def set_ready(self, document_id: str) -> Sequence[str]:
        replaced: list[str] = []
        with writing(self._engine) as session:
            row = _find(session, document_id)
            row.status, row.error, row.error_code = DocumentStatus.READY, None, None
            for before in _before(session, row):
                if before.status == DocumentStatus.REPLACED:
                    continue
                before.status, before.replaced_by_id = DocumentStatus.REPLACED, row.id
                session.execute(delete(PassageRow).where(PassageRow.document_id == before.id))
                session.merge(IndexDeletionRow(document_id=before.id, collection_id=before.collection_id))
                replaced.append(before.id)
        return replaced

    def set_tags(self, document_id: str, tags: Sequence[str]) -> None:
        with writing(self._engine) as session:
            _find(session, document_id).tags = list(tags)

    # -- deleting --

    def delete_document(self, document_id: str) -> None:
        with writing(self._engine) as session:
            row = _find(session, document_id)
            forget_document(session, row.collection_id, row.id)
            for after in session.scalars(select(DocumentRow).where(DocumentRow.replaces_id == row.id)):
                after.replaces_id = row.replaces_id
            session.merge(IndexDeletionRow(document_id=row.id, collection_id=row.collection_id))
            session.delete(row)
        forget_deleted(self._engine)
        shutil.rmtree(self._data_dir.document(document_id), ignore_errors=True)

    def deletions_due(self) -> Sequence[tuple[str, str]]:
        with reading(self._engine) as session:
            rows = session.scalars(select(IndexDeletionRow).order_by(IndexDeletionRow.document_id))
            return [(row.collection_id, row.document_id) for row in rows]

    def deletion_done(self, document_id: str) -> None:
        with writing(self._engine) as session:
            session.execute(delete(IndexDeletionRow).where(IndexDeletionRow.document_id == document_id))


def _find(session: Session, document_id: str) -> DocumentRow:
    row = session.get(DocumentRow, document_id)
    if row is None:
        raise _not_found(document_id)
    return row


def _before(session: Session, row: DocumentRow) -> list[DocumentRow]:
    """Return the versions before one, newest first."""
    found: list[DocumentRow] = []
    seen = {row.id}
    while row.replaces_id is not None and row.replaces_id not in seen:
        before = session.get(DocumentRow, row.replaces_id)
        if before is None:
            break
        seen.add(before.id)
        found.append(before)
        row = before
    return found


def _line(session: Session, row: DocumentRow) -> list[str]:
    """Return the ids of every version of the same document."""
    found = [row.id, *(before.id for before in _before(session, row))]
    rest = [row.id]
    while rest:
        after = select(DocumentRow.id).where(DocumentRow.replaces_id.in_(rest), DocumentRow.id.not_in(found))
        rest = list(session.scalars(after))
        found += rest
    return found


def _not_found(document_id: str) -> DocumentNotFound:
    return DocumentNotFound(f"no document {document_id!r}; `terakoya documents list` shows their ids")


def _refuse_duplicate(session: Session, row: DocumentRow) -> None:
    same = select(DocumentRow).where(
        DocumentRow.collection_id == row.collection_id, DocumentRow.content_sha256 == row.content_sha256, _IS_NEWEST
    )
    if (found := session.scalars(same).one_or_none()) is not None:
        raise Conflict(f"the collection holds the same file already: {found.filename!r}, document {found.id!r}")


def _documents() -> Select[DocumentRow, int, str | None, str | None, str | None]:
    passages = select(func.count()).where(PassageRow.document_id == DocumentRow.id).scalar_subquery()
    columns = (DocumentRow, passages, TaskRow.state, TaskRow.error, TaskRow.error_code)
    return select(*columns).outerjoin(TaskRow, TaskRow.id == DocumentRow.task_id)


def _read(found: Any) -> DocumentInfo:
    row, passages, state, error, error_code = found
    ended_badly = None
    if row.status in _UNFINISHED and state in _ENDED_BADLY:
        ended_badly = (error or "its indexing was cancelled; add the file again to index it", error_code or "cancelled")
    return _info(row, passages, ended_badly, goes_on=row.status == DocumentStatus.FAILED and state in _GOES_ON)


def _info(
    row: DocumentRow, passages: int, ended_badly: tuple[str, str] | None, *, goes_on: bool = False
) -> DocumentInfo:
    error, error_code = ended_badly or ((None, None) if goes_on else (row.error, row.error_code))
    return DocumentInfo(
        id=row.id,
        collection_id=row.collection_id,
        title=shown_title(row.title, row.filename),
        filename=row.filename,
        parser=row.parser,
        size_bytes=row.size_bytes,
        content_sha256=row.content_sha256,
        version=row.version,
        status=_status(row, ended_badly=ended_badly is not None, goes_on=goes_on),
        created_at=row.created_at,
        task_id=row.task_id,
        error=error,
        error_code=error_code,
        language=None if row.language is None else Language(row.language),
        pages=row.pages,
        characters=row.characters,
        passages=passages,
        notices=tuple(row.notices),
        source=row.source,
        replaces_id=row.replaces_id,
        replaced_by_id=row.replaced_by_id,
        recognised=tuple((int(page), float(confidence)) for page, confidence in row.recognised),
        tags=tuple(row.tags),
    )


def _status(row: DocumentRow, *, ended_badly: bool, goes_on: bool) -> DocumentStatus:
    if ended_badly:
        return DocumentStatus.FAILED
    return DocumentStatus.QUEUED if goes_on else DocumentStatus(row.status)
