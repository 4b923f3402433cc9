"""Which foreign API a job was asked for by"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("api", sa.String(16)))


def downgrade() -> None:
    op.drop_column("jobs", "api")
