"""What people say of a model: tags, a stage, and which engine is to answer for it."""

import sqlalchemy as sa
from alembic import op

revision = "r0005"
down_revision = "r0004"


def upgrade() -> None:
    op.add_column("models", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("models", sa.Column("stage", sa.String(40), nullable=False, server_default="draft"))
    op.add_column("models", sa.Column("engine", sa.String(40), nullable=False, server_default="auto"))


def downgrade() -> None:
    op.drop_column("models", "engine")
    op.drop_column("models", "stage")
    op.drop_column("models", "tags")
