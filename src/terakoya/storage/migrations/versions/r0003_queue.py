"""The queue's order, the device and the working time of a task."""

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision = "r0002"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("place", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("worked_seconds", sa.Double(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("device", sa.String(100)))
    _give_places()
    op.drop_index("ix_tasks_kind", "tasks")
    op.create_index("ix_tasks_kind", "tasks", ["kind", "state", "priority", "place"])
    op.create_index("ix_tasks_place", "tasks", ["place"])


def downgrade() -> None:
    op.drop_index("ix_tasks_place", "tasks")
    op.drop_index("ix_tasks_kind", "tasks")
    op.create_index("ix_tasks_kind", "tasks", ["kind", "state", "queued_at"])
    for column in ("device", "worked_seconds", "place", "priority"):
        op.drop_column("tasks", column)


def _give_places() -> None:
    """What waits keeps its order."""
    tasks = sa.table("tasks", sa.column("id"), sa.column("state"), sa.column("queued_at"), sa.column("place"))
    connection = op.get_bind()
    queued = sa.select(tasks.c.id).where(tasks.c.state == "queued").order_by(tasks.c.queued_at, tasks.c.id)
    for place, task_id in enumerate(connection.scalars(queued).all(), start=1):
        connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(place=place))
