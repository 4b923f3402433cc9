"""Who works where: leases of processes instead of names, and what each worker has"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def _added() -> dict[str, list[sa.Column[Any]]]:
    """The new columns by table."""
    return {
        "jobs": [
            sa.Column("lease", sa.String(32)),
            sa.Column("device", sa.String(64)),
            sa.Column("loras", sa.Text(), nullable=False, server_default=""),
        ],
        "images": [
            sa.Column("worker", sa.String(200)),
            sa.Column("device", sa.String(64)),
        ],
        "workers": [
            sa.Column("lease", sa.String(32), nullable=False, server_default=""),
            sa.Column("folder", sa.String(64), nullable=False, server_default=""),
            sa.Column("device_name", sa.String(200), nullable=False, server_default=""),
            sa.Column("torch", sa.String(64), nullable=False, server_default=""),
            sa.Column("free_bytes", sa.BigInteger()),
            sa.Column("draining", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("seen_at", sa.Float(), nullable=False, server_default="0"),
            sa.Column("catalog", sa.Text(), nullable=False, server_default="{}"),
            sa.Column("catalog_digest", sa.String(64), nullable=False, server_default=""),
        ],
    }


def upgrade() -> None:
    for table, columns in _added().items():
        for column in columns:
            op.add_column(table, column)
    op.execute("UPDATE jobs SET lease = substr(worker, 1, 32) WHERE status = 'running'")
    op.drop_index("ix_jobs_worker", "jobs")
    op.create_index("ix_jobs_lease", "jobs", ["lease"])


def downgrade() -> None:
    op.drop_index("ix_jobs_lease", "jobs")
    op.create_index("ix_jobs_worker", "jobs", ["worker"])
    op.execute("UPDATE jobs SET worker = NULL WHERE status <> 'running'")
    for table, columns in _added().items():
        for column in columns:
            op.drop_column(table, column.name)
