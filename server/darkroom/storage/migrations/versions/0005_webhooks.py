"""Who is to be told of a job's end"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("url", sa.Text()),
        sa.Column("origin", sa.String(300), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float()),
        sa.Column("sender", sa.String(64)),
        sa.Column("last_error", sa.String(200)),
    )
    op.create_index("webhooks_by_state", "webhooks", ["state", "origin", "due_at"])


def downgrade() -> None:
    op.drop_index("webhooks_by_state", "webhooks")
    op.drop_table("webhooks")
