"""Collections, documents with their text and passages, traces of queries, results of the citation probe."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("name_key", sa.String(400), nullable=False),
        sa.Column("embedder_id", sa.String(40), nullable=False),
        sa.Column("embedder_sha256", sa.String(64), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("average_length", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collections"),
        sa.UniqueConstraint("name_key", name="uq_collections_name_key"),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("collection_id", sa.String(40), nullable=False),
        sa.Column("title", sa.String(500), nullable=False),
        sa.Column("filename", sa.String(500), nullable=False),
        sa.Column("parser", sa.String(40), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task_id", sa.String(40)),
        sa.Column("error", sa.Text()),
        sa.Column("error_code", sa.String(80)),
        sa.Column("language", sa.String(10)),
        sa.Column("pages", sa.Integer()),
        sa.Column("characters", sa.BigInteger(), nullable=False),
        sa.Column("notices", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_documents_collection_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_documents_task_id"),
        sa.UniqueConstraint("collection_id", "content_sha256", name="uq_documents_collection_id"),
    )
    op.create_index("ix_documents_collection_id", "documents", ["collection_id", "created_at"])
    op.create_table(
        "document_texts",
        sa.Column("document_id", sa.String(40), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name="pk_document_texts"),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name="fk_document_texts_document_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "passages",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("document_id", sa.String(40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("page", sa.Integer()),
        sa.Column("heading", sa.JSON(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("terms", sa.LargeBinary(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("embedding", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_passages"),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name="fk_passages_document_id", ondelete="CASCADE"),
    )
    op.create_index("ix_passages_document_id", "passages", ["document_id", "ordinal", "length"])
    op.create_table(
        "index_deletions",
        sa.Column("document_id", sa.String(40), nullable=False),
        sa.Column("collection_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name="pk_index_deletions"),
    )
    op.create_table(
        "traces",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("collection_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trace", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_traces"),
    )
    op.create_table(
        "probes",
        sa.Column("model_sha256", sa.String(64), nullable=False),
        sa.Column("language", sa.String(10), nullable=False),
        sa.Column("probe", sa.String(80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("model_sha256", "language", name="pk_probes"),
    )


def downgrade() -> None:
    for table in ("probes", "traces", "index_deletions", "passages", "document_texts", "documents", "collections"):
        op.drop_table(table)
