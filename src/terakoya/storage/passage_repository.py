"""Passages in the database: their text, what the lexical index counts in them, their embeddings. Terms and embeddings
are stored as bytes of a fixed order, the same on every machine. Knows nothing of documents but which of them are ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

import numpy as np
from sqlalchemy import Engine, select, update

from terakoya.domain.documents import DocumentStatus, IndexedPassage, Passage, Terms, Vector
from terakoya.storage.database import reading, writing
from terakoya.storage.tables import DocumentRow, PassageRow

_PAGE = 256
"""Passages read at once where all are streamed: no transaction stays open between two pages."""
_IDS_PER_QUERY = 500
_TERM_TYPE, _VECTOR_TYPE = np.dtype("<u4"), np.dtype("<f4")


class SqlPassages:
    """The part of the DocumentRepository that is about passages."""

    _engine: Engine

    def passages_to_embed(self, document_id: str, *, limit: int) -> Sequence[Passage]:
        missing = (
            select(PassageRow)
            .where(PassageRow.document_id == document_id, PassageRow.embedding.is_(None))
            .order_by(PassageRow.ordinal)
            .limit(limit)
        )
        with reading(self._engine) as session:
            return [_passage(row) for row in session.scalars(missing)]

    def save_embeddings(self, embeddings: Mapping[str, Vector]) -> None:
        with writing(self._engine) as session:
            for passage_id, vector in embeddings.items():
                stored = vector_to_bytes(vector)
                session.execute(update(PassageRow).where(PassageRow.id == passage_id).values(embedding=stored))

    def indexed_passages(self, collection_id: str, document_id: str | None = None) -> Iterator[IndexedPassage]:
        documents = select(DocumentRow.id).where(DocumentRow.collection_id == collection_id)
        if document_id is not None:
            documents = documents.where(DocumentRow.id == document_id)
        with reading(self._engine) as session:
            ids = session.scalars(documents.order_by(DocumentRow.id)).all()
        for found in ids:
            yield from self._indexed_of(found)

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        found: dict[str, Passage] = {}
        with reading(self._engine) as session:
            for some in _in_parts(ids):
                rows = (
                    select(PassageRow)
                    .join(DocumentRow, DocumentRow.id == PassageRow.document_id)
                    .where(PassageRow.id.in_(some), DocumentRow.status == DocumentStatus.READY)
                )
                found |= {row.id: _passage(row) for row in session.scalars(rows)}
        return found

    def titles(self, document_ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with reading(self._engine) as session:
            for some in _in_parts(document_ids):
                rows = select(DocumentRow.id, DocumentRow.title, DocumentRow.filename).where(DocumentRow.id.in_(some))
                found |= {row.id: shown_title(row.title, row.filename) for row in session.execute(rows)}
        return found

    def _indexed_of(self, document_id: str) -> Iterator[IndexedPassage]:
        after = -1
        while True:
            page = (
                select(PassageRow.id, PassageRow.ordinal, PassageRow.terms, PassageRow.embedding)
                .where(
                    PassageRow.document_id == document_id,
                    PassageRow.ordinal > after,
                    PassageRow.embedding.is_not(None),
                )
                .order_by(PassageRow.ordinal)
                .limit(_PAGE)
            )
            with reading(self._engine) as session:
                rows = session.execute(page).all()
            for row in rows:
                yield IndexedPassage(row.id, document_id, terms_from_bytes(row.terms), vector_from_bytes(row.embedding))
            if len(rows) < _PAGE:
                return
            after = rows[-1].ordinal


def shown_title(title: str, filename: str) -> str:
    """A document without a title goes by its file's name, without the ending."""
    return title or PurePath(filename).stem or filename


def passage_row(passage: Passage, terms: Terms) -> PassageRow:
    return PassageRow(
        id=passage.id,
        document_id=passage.document_id,
        version=passage.version,
        ordinal=passage.ordinal,
        start=passage.start,
        end=passage.end,
        page=passage.page,
        heading=list(passage.heading),
        text=passage.text,
        terms=terms_to_bytes(terms),
        length=sum(terms.values()),
        embedding=None,
    )


def terms_to_bytes(terms: Terms) -> bytes:
    return np.array(sorted(terms.items()), dtype=_TERM_TYPE).tobytes()


def terms_from_bytes(stored: bytes) -> Terms:
    pairs = np.frombuffer(stored, dtype=_TERM_TYPE).reshape(-1, 2)
    return dict(zip(pairs[:, 0].tolist(), pairs[:, 1].tolist(), strict=True))


def vector_to_bytes(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, dtype=_VECTOR_TYPE).tobytes()


def vector_from_bytes(stored: bytes) -> Vector:
    return np.frombuffer(stored, dtype=_VECTOR_TYPE).astype(np.float32)


def _in_parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes only so many parameters."""
    return (ids[start : start + _IDS_PER_QUERY] for start in range(0, len(ids), _IDS_PER_QUERY))


def _passage(row: PassageRow) -> Passage:
    return Passage(
        id=row.id,
        document_id=row.document_id,
        version=row.version,
        ordinal=row.ordinal,
        start=row.start,
        end=row.end,
        text=row.text,
        page=row.page,
        heading=tuple(row.heading),
    )
