"""The queued jobs in an index of their own, which holds what estimates are made from"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    columns = ["status", "client", "model", "pixels", "urgency", "images", "steps"]
    queued = sa.text("status = 'queued'")
    op.create_index("jobs_queued", "jobs", columns, sqlite_where=queued, postgresql_where=queued)


def downgrade() -> None:
    op.drop_index("jobs_queued", "jobs")
