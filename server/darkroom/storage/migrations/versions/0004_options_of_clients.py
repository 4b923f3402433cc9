"""What each client of the A1111 API has set"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "client_options",
        sa.Column("client", sa.String(200), primary_key=True),
        sa.Column("options", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("client_options")
