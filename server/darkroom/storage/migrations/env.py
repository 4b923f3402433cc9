"""Alembic's entry: runs the migrations on the connection that `database.migrate` opened."""

from alembic import context

from darkroom.storage.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
