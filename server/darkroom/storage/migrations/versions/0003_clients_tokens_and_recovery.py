"""Clients and their turns, tokens and pairing codes, what recovery and measuring need"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for column in (
        sa.Column("client_name", sa.String(100), nullable=False, server_default=""),
        sa.Column("urgency", sa.Integer(), nullable=False, server_default="3"),
        sa.Column("apart", sa.Boolean(), nullable=False, server_default="0"),
        sa.Column("predicted_s", sa.Float()),
        sa.Column("request_id", sa.String(64)),
    ):
        op.add_column("jobs", column)
    op.create_index("jobs_by_fingerprint", "jobs", ["client", "fingerprint"])
    op.add_column("workers", sa.Column("metrics", sa.Text(), nullable=False, server_default=""))

    op.create_table(
        "clients",
        sa.Column("client", sa.String(200), primary_key=True),
        sa.Column("served", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float()),
        sa.Column("revoked_at", sa.Float()),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "pairing_codes",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
    )

    # Programs on this machine were known by their address before there were tokens.
    for table in ("jobs", "uploads"):
        op.execute(f"UPDATE {table} SET client = 'local' WHERE client = 'address:127.0.0.1'")
    op.execute("UPDATE jobs SET client_name = 'this machine' WHERE client = 'local'")


def downgrade() -> None:
    for table in ("jobs", "uploads"):
        op.execute(f"UPDATE {table} SET client = 'address:127.0.0.1' WHERE client = 'local'")
    for table in ("pairing_codes", "tokens", "clients"):
        op.drop_table(table)
    op.drop_column("workers", "metrics")
    op.drop_index("jobs_by_fingerprint", "jobs")
    for name in ("request_id", "predicted_s", "apart", "urgency", "client_name"):
        op.drop_column("jobs", name)
