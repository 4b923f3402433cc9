"""Model, pixels and images of a job as columns; `apart` is named `isolated`"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs RENAME COLUMN apart TO isolated")
    op.add_column("jobs", sa.Column("model", sa.String(210), nullable=False, server_default=""))
    for name in ("pixels", "images"):
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=False, server_default="1"))
    op.execute(
        "UPDATE jobs SET model = json_extract(request, '$.model'),"
        " pixels = json_extract(request, '$.width') * json_extract(request, '$.height'),"
        " images = json_extract(request, '$.num_images')"
    )


def downgrade() -> None:
    for name in ("images", "pixels", "model"):
        op.drop_column("jobs", name)
    op.execute("ALTER TABLE jobs RENAME COLUMN isolated TO apart")
