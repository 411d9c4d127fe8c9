"""Data sets are of a kind; those that are there are conversations."""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision = "r0003"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("kind", sa.String(40), nullable=False, server_default="conversation"))


def downgrade() -> None:
    op.drop_column("datasets", "kind")
