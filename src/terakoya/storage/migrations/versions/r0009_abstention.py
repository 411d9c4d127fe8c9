"""Coefficients of abstention that were fitted on a collection's own questions."""

import sqlalchemy as sa
from alembic import op

revision = "r0009"
down_revision = "r0008"


def upgrade() -> None:
    op.add_column("collections", sa.Column("abstention", sa.JSON()))


def downgrade() -> None:
    op.drop_column("collections", "abstention")
