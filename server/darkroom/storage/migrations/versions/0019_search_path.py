"""Functions that keep totals look for tables in the schema alone

They run with the rights of the tables' owner. PostgreSQL looks for tables among the caller's
temporary ones first unless the path says otherwise, so the role of a box could have put its own
`totals`, with a trigger of its own, in the way
(https://www.postgresql.org/docs/current/sql-createfunction.html, "Writing SECURITY DEFINER
Functions Safely").
"""

from alembic import op

revision = "0019"
down_revision = "0018"

FUNCTIONS = [
    f"{table}_counted_at_{event}"
    for table in ("jobs", "images", "explanations", "uploads")
    for event in ("insert", "delete", *(["update"] if table == "jobs" else []))
]


def upgrade() -> None:
    _search("%I, pg_temp")


def downgrade() -> None:
    _search("%I")


def _search(path: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for function in FUNCTIONS:
        op.execute(
            "DO $do$ BEGIN EXECUTE format("
            f"'ALTER FUNCTION %I.{function}() SET search_path = {path}', "
            "current_schema(), current_schema()); END $do$"
        )
