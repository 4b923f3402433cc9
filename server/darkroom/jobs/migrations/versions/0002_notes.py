"""Jobs carry notes"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in a batch: that makes the table anew, which events and images refer to.
    op.add_column("jobs", sa.Column("notes", sa.Text(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("jobs", "notes")
