"""The tables. Knows columns and constraints; what may happen to a row is the repositories' business."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, on databases that forget the zone too."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[list[float]]: JSON,
    }


class DatasetRow(Base):
    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    heldout_rows: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str] = mapped_column(String(40))
    encoding: Mapped[str] = mapped_column(String(40))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    content_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    notices: Mapped[list[str]]
    statistics: Mapped[dict[str, Any]]
    kind: Mapped[str] = mapped_column(String(40), server_default="conversation")


class TaskRow(Base):
    __tablename__ = "tasks"
    __table_args__ = (Index("ix_tasks_kind", "kind", "state", "priority", "place"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(40))
    request: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    priority: Mapped[int]
    place: Mapped[int] = mapped_column(BigInteger, index=True)
    """Among those of its priority, the lowest first. A number, not a time: clocks are set."""
    worked_seconds: Mapped[float]
    device: Mapped[str | None] = mapped_column(String(100))
    attempt: Mapped[int]
    fencing_token: Mapped[int] = mapped_column(BigInteger)
    owner_boot_id: Mapped[str | None] = mapped_column(String(80))
    owner_pid: Mapped[int | None] = mapped_column(BigInteger)
    owner_started_at: Mapped[float | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(80))
    result: Mapped[dict[str, Any]]
    announced: Mapped[bool]
    """Whether the ``finished`` event of its final state is in the log."""

    model: Mapped[ModelRow | None] = relationship(back_populates="task", lazy="joined", viewonly=True)


class ModelRow(Base):
    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)
    kind: Mapped[str] = mapped_column(String(40))
    architecture: Mapped[str] = mapped_column(String(200))
    parameters: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    content_sha256: Mapped[str] = mapped_column(String(64), index=True)
    """Not unique: models of the same bytes have a row each and share the directory."""
    source: Mapped[str] = mapped_column(String(400))
    license: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id"), unique=True)
    notes: Mapped[str] = mapped_column(Text)
    tags: Mapped[list[Any]] = mapped_column(JSON, server_default="[]")
    stage: Mapped[str] = mapped_column(String(40), server_default="draft")
    engine: Mapped[str] = mapped_column(String(40), server_default="auto")
    card: Mapped[dict[str, Any]]

    task: Mapped[TaskRow | None] = relationship(back_populates="model", viewonly=True)


class CollectionRow(Base):
    __tablename__ = "collections"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)
    embedder_id: Mapped[str] = mapped_column(String(40))
    """Not a foreign key: what was embedded stays readable when its model is gone; new texts then cannot be."""
    embedder_sha256: Mapped[str] = mapped_column(String(64))
    dimension: Mapped[int]
    average_length: Mapped[float]
    created_at: Mapped[datetime]
    retrieval: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    abstention: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    can_filter: Mapped[bool] = mapped_column(server_default="0")


class DocumentRow(Base):
    __tablename__ = "documents"
    __table_args__ = (
        Index("ix_documents_collection_id", "collection_id", "created_at"),
        Index("ix_documents_source", "collection_id", "source"),
        Index(
            "uq_documents_content",
            "collection_id",
            "content_sha256",
            unique=True,
            sqlite_where=text("status != 'replaced'"),
            postgresql_where=text("status != 'replaced'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    collection_id: Mapped[str] = mapped_column(ForeignKey("collections.id"))
    title: Mapped[str] = mapped_column(String(500))
    filename: Mapped[str] = mapped_column(String(500))
    parser: Mapped[str] = mapped_column(String(40))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    content_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    status: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id"))
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(80))
    language: Mapped[str | None] = mapped_column(String(10))
    pages: Mapped[int | None]
    characters: Mapped[int] = mapped_column(BigInteger)
    notices: Mapped[list[str]]
    source: Mapped[str | None] = mapped_column(String(1000))
    """Path in the folder or archive that it came from."""
    replaces_id: Mapped[str | None] = mapped_column(String(40))
    """The version before it; no foreign key, since that may be deleted."""
    replaced_by_id: Mapped[str | None] = mapped_column(String(40))
    recognised: Mapped[list[list[float]]] = mapped_column(server_default="[]")
    """[page, confidence in percent] of pages that were read by text recognition."""
    tags: Mapped[list[str]] = mapped_column(server_default="[]")


class DocumentTextRow(Base):
    """A table of its own: lists of documents must not read their texts."""

    __tablename__ = "document_texts"

    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True)
    text: Mapped[str] = mapped_column(Text)


class PassageRow(Base):
    __tablename__ = "passages"
    __table_args__ = (Index("ix_passages_document_id", "document_id", "ordinal", "length"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    version: Mapped[int]
    ordinal: Mapped[int]
    start: Mapped[int] = mapped_column(BigInteger)
    end: Mapped[int] = mapped_column(BigInteger)
    page: Mapped[int | None]
    heading: Mapped[list[str]]
    text: Mapped[str] = mapped_column(Text)
    terms: Mapped[bytes] = mapped_column(LargeBinary)
    """Pairs of little-endian uint32: term id, count; by term id."""
    length: Mapped[int]
    """Terms in all, for the average."""
    embedding: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Little-endian float32; None until it was embedded."""


class IndexDeletionRow(Base):
    """A deleted document whose points the vector index may still hold."""

    __tablename__ = "index_deletions"

    document_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    collection_id: Mapped[str] = mapped_column(String(40))


class TraceRow(Base):
    __tablename__ = "traces"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    collection_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    trace: Mapped[dict[str, Any]]


class ProbeRow(Base):
    """Result of the citation probe of one model in one language."""

    __tablename__ = "probes"

    model_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    language: Mapped[str] = mapped_column(String(10), primary_key=True)
    probe: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime]
    result: Mapped[dict[str, Any]]


class QuestionSetRow(Base):
    """Questions to a collection with what answers them. They name documents but do not hold them there."""

    __tablename__ = "question_sets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    collection_id: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(200))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)
    origin: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    questions: Mapped[list[Any]] = mapped_column(JSON)


class EvaluationRow(Base):
    """What an evaluation found; while its task works there is no row yet."""

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    task_id: Mapped[str] = mapped_column(String(40), unique=True)
    collection_id: Mapped[str] = mapped_column(String(40), index=True)
    question_set_id: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    report: Mapped[dict[str, Any]]
    questions: Mapped[list[Any]] = mapped_column(JSON)
    """Figures of each question, without its text."""
