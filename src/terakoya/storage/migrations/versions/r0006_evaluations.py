"""Question sets, evaluations, and how a collection is searched."""

import sqlalchemy as sa
from alembic import op

revision = "r0006"
down_revision = "r0005"


def upgrade() -> None:
    op.add_column("collections", sa.Column("retrieval", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "question_sets",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("collection_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("name_key", sa.String(400), nullable=False),
        sa.Column("origin", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("questions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_question_sets"),
        sa.UniqueConstraint("name_key", name="uq_question_sets_name_key"),
    )
    op.create_index("ix_question_sets_collection_id", "question_sets", ["collection_id"])
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("task_id", sa.String(40), nullable=False),
        sa.Column("collection_id", sa.String(40), nullable=False),
        sa.Column("question_set_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("questions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.UniqueConstraint("task_id", name="uq_evaluations_task_id"),
    )
    op.create_index("ix_evaluations_collection_id", "evaluations", ["collection_id"])


def downgrade() -> None:
    op.drop_table("evaluations")
    op.drop_table("question_sets")
    op.drop_column("collections", "retrieval")
