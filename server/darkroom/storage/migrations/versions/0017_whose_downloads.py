"""The data folder of each download"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    column = sa.Column("folder", sa.String(64), nullable=False, server_default="")
    op.add_column("pulls", column)


def downgrade() -> None:
    op.drop_column("pulls", "folder")
