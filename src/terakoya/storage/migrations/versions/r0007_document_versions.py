"""Documents know where they came from and which one they replace; pages that were recognised keep their confidence."""

import sqlalchemy as sa
from alembic import op

revision = "r0007"
down_revision = "r0006"


def upgrade() -> None:
    with op.batch_alter_table("documents") as documents:
        documents.add_column(sa.Column("source", sa.String(1000)))
        documents.add_column(sa.Column("replaces_id", sa.String(40)))
        documents.add_column(sa.Column("replaced_by_id", sa.String(40)))
        documents.add_column(sa.Column("recognised", sa.JSON(), nullable=False, server_default="[]"))
        documents.drop_constraint("uq_documents_collection_id", type_="unique")
    op.create_index("ix_documents_source", "documents", ["collection_id", "source"])
    op.create_index(
        "uq_documents_content",
        "documents",
        ["collection_id", "content_sha256"],
        unique=True,
        sqlite_where=sa.text("status != 'replaced'"),
        postgresql_where=sa.text("status != 'replaced'"),
    )


def downgrade() -> None:
    op.execute(sa.text("DELETE FROM documents WHERE status = 'replaced'"))
    op.drop_index("uq_documents_content", "documents")
    op.drop_index("ix_documents_source", "documents")
    with op.batch_alter_table("documents") as documents:
        for column in ("recognised", "replaced_by_id", "replaces_id", "source"):
            documents.drop_column(column)
        documents.create_unique_constraint("uq_documents_collection_id", ["collection_id", "content_sha256"])
