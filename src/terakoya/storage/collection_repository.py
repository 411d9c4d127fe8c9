"""Collections in the database: names, what embedded them, how much they hold. Knows nothing of indexes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Select, delete, func, or_, select
from sqlalchemy.orm import Session

from terakoya.domain.documents import CollectionInfo, DocumentStatus
from terakoya.domain.names import check_name, did_you_mean, name_key
from terakoya.domain.retrieval import RetrievalSettings
from terakoya.exceptions import CollectionNotFound, Conflict, InvalidConfig
from terakoya.storage.database import forget_deleted, reading, writing
from terakoya.storage.evaluation_repository import forget_collection
from terakoya.storage.files import DataDir, new_id
from terakoya.storage.tables import CollectionRow, DocumentRow, IndexDeletionRow, PassageRow


class SqlCollections:
    """The part of the DocumentRepository that is about collections."""

    def __init__(self, engine: Engine, data_dir: DataDir) -> None:
        self._engine = engine
        self._data_dir = data_dir

    def add_collection(self, name: str, *, embedder_id: str, embedder_sha256: str, dimension: int) -> CollectionInfo:
        stored = check_name(name)
        if dimension < 1:
            raise InvalidConfig(f"vectors have at least one dimension; got {dimension!r}")
        row = CollectionRow(
            id=new_id("coll"),
            name=stored,
            name_key=name_key(stored),
            embedder_id=embedder_id,
            embedder_sha256=embedder_sha256,
            dimension=dimension,
            average_length=0.0,
            created_at=datetime.now(UTC),
            retrieval={},
            can_filter=True,
        )
        with writing(self._engine) as session:
            taken = select(CollectionRow.name).where(CollectionRow.name_key == row.name_key)
            if (found := session.scalars(taken).first()) is not None:
                raise Conflict(f"there is already a collection {found!r}; choose another name, or add documents to it")
            session.add(row)
        return _info(row, 0, 0)

    def list_collections(self) -> Sequence[CollectionInfo]:
        with reading(self._engine) as session:
            found = session.execute(_with_counts().order_by(CollectionRow.name_key))
            return [_info(row, documents, passages) for row, documents, passages in found]

    def find_collection(self, id_or_name: str) -> CollectionInfo:
        with reading(self._engine) as session:
            found = session.execute(_with_counts().where(_called(id_or_name))).one_or_none()
            if found is None:
                raise _not_found(session, id_or_name)
            row, documents, passages = found
            return _info(row, documents, passages)

    def set_average_length(self, collection_id: str, average_length: float) -> None:
        with writing(self._engine) as session:
            find_collection_row(session, collection_id).average_length = average_length

    def set_retrieval(self, collection_id: str, settings: RetrievalSettings) -> None:
        with writing(self._engine) as session:
            find_collection_row(session, collection_id).retrieval = settings.to_json()

    def set_abstention(self, collection_id: str, coefficients: dict[str, Any] | None) -> None:
        with writing(self._engine) as session:
            find_collection_row(session, collection_id).abstention = coefficients

    def set_can_filter(self, collection_id: str) -> None:
        with writing(self._engine) as session:
            find_collection_row(session, collection_id).can_filter = True

    def actual_average_length(self, collection_id: str) -> float:
        average = (
            select(func.avg(PassageRow.length))
            .join(DocumentRow, DocumentRow.id == PassageRow.document_id)
            .where(DocumentRow.collection_id == collection_id)
        )
        with reading(self._engine) as session:
            return float(session.scalar(average) or 0.0)

    def delete_collection(self, collection_id: str) -> None:
        """Note besides that the index must drop it: ``deletions_due`` then names it in both places."""
        with writing(self._engine) as session:
            row = find_collection_row(session, collection_id)
            of_it = DocumentRow.collection_id == row.id
            documents = list(session.scalars(select(DocumentRow.id).where(of_it)))
            session.execute(delete(DocumentRow).where(of_it))
            session.execute(delete(IndexDeletionRow).where(IndexDeletionRow.collection_id == row.id))
            session.add(IndexDeletionRow(document_id=row.id, collection_id=row.id))
            forget_collection(session, row.id)
            session.delete(row)
        forget_deleted(self._engine)
        for document_id in documents:
            shutil.rmtree(self._data_dir.document(document_id), ignore_errors=True)


def find_collection_row(session: Session, id_or_name: str) -> CollectionRow:
    """Raises: CollectionNotFound."""
    row = session.scalars(select(CollectionRow).where(_called(id_or_name))).one_or_none()
    if row is None:
        raise _not_found(session, id_or_name)
    return row


def _called(id_or_name: str) -> Any:
    return or_(CollectionRow.id == id_or_name, CollectionRow.name_key == name_key(id_or_name))


def _not_found(session: Session, id_or_name: str) -> CollectionNotFound:
    names = session.scalars(select(CollectionRow.name)).all()
    return CollectionNotFound(f"no collection {id_or_name!r}{did_you_mean(id_or_name, names)}")


def _with_counts() -> Select[CollectionRow, int, int]:
    documents = select(func.count()).where(
        DocumentRow.collection_id == CollectionRow.id, DocumentRow.status != DocumentStatus.REPLACED
    )
    passages = (
        select(func.count())
        .select_from(PassageRow)
        .join(DocumentRow, DocumentRow.id == PassageRow.document_id)
        .where(DocumentRow.collection_id == CollectionRow.id)
    )
    return select(CollectionRow, documents.scalar_subquery(), passages.scalar_subquery())


def _info(row: CollectionRow, documents: int, passages: int) -> CollectionInfo:
    return CollectionInfo(
        id=row.id,
        name=row.name,
        embedder_id=row.embedder_id,
        embedder_sha256=row.embedder_sha256,
        dimension=row.dimension,
        average_length=row.average_length,
        created_at=row.created_at,
        documents=documents,
        passages=passages,
        retrieval=RetrievalSettings.of(row.retrieval),
        abstention=row.abstention,
        can_filter=row.can_filter,
    )
