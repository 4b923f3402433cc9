"""Notes of jobs, leases of workers, speeds by how many images share the engine"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Not in a batch: that makes the table anew, which events and images refer to.
    op.add_column("jobs", sa.Column("notes", sa.Text(), nullable=False, server_default="[]"))

    # A worker's row lives from heartbeat to heartbeat: nothing in it is worth keeping.
    op.drop_table("workers")
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
    )

    # SQLite cannot change a primary key. What was measured before counts as measured alone.
    op.rename_table("speeds", "speeds_0001")
    op.create_table(
        "speeds",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("pixels", sa.Integer(), primary_key=True),
        sa.Column("in_flight", sa.Integer(), primary_key=True),
        sa.Column("step_seconds", sa.Float(), nullable=False),
        sa.Column("other_seconds", sa.Float(), nullable=False),
    )
    op.execute(
        "INSERT INTO speeds (model, pixels, in_flight, step_seconds, other_seconds)"
        " SELECT model, pixels, 1, step_seconds, other_seconds FROM speeds_0001"
    )
    op.drop_table("speeds_0001")


def downgrade() -> None:
    op.rename_table("speeds", "speeds_0002")
    op.create_table(
        "speeds",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("pixels", sa.Integer(), primary_key=True),
        sa.Column("step_seconds", sa.Float(), nullable=False),
        sa.Column("other_seconds", sa.Float(), nullable=False),
    )
    op.execute(
        "INSERT INTO speeds (model, pixels, step_seconds, other_seconds)"
        " SELECT model, pixels, step_seconds, other_seconds FROM speeds_0002 WHERE in_flight = 1"
    )
    op.drop_table("speeds_0002")

    op.drop_table("workers")
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
    )
    op.drop_column("jobs", "notes")
