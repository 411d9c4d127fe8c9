"""Tags of documents, and whether a collection's index knows what documents can be chosen by."""

import sqlalchemy as sa
from alembic import op

revision = "r0008"
down_revision = "r0007"


def upgrade() -> None:
    op.add_column("documents", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("collections", sa.Column("can_filter", sa.Boolean(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("collections", "can_filter")
    op.drop_column("documents", "tags")
