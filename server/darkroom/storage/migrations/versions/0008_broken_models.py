"""Models that a worker could not load"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("workers", sa.Column("broken", sa.Text(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("workers", "broken")
