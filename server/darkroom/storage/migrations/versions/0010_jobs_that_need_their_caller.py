"""Jobs that need their caller"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("wanted_until", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "wanted_until")
