"""Alembic's entry: runs the migrations on the connection that ``database.migrate`` opened, in its transaction."""

from alembic import context

from terakoya.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
