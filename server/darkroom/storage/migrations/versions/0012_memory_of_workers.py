"""What models take of a worker's memory"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("workers", sa.Column("memory", sa.Text(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("workers", "memory")
