"""Totals that triggers keep, and indexes, so that no request counts or sorts all that is stored"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

# By table: the totals that a row changes, as SQL for its name and for what it adds.
COUNTED = {
    "jobs": [("'jobs:' || {row}.status", "1"), ("'client:' || {row}.client", "1")],
    "images": [("'pictures'", "1"), ("'picture_bytes'", "{row}.bytes")],
    "explanations": [("'explanation_bytes'", "{row}.bytes")],
    "uploads": [("'upload_bytes'", "{row}.bytes")],
}
FROM_PICTURES = sa.text("task <> 'txt2img'")
# A job changes its row three times and more, and what is dead slows down who looks for queued jobs.
# By default a fifth of a table may be dead, which is a lot of a million jobs.
VACUUMED = ("jobs", "totals", "clients", "workers")


def upgrade() -> None:
    op.create_table(
        "totals",
        sa.Column("name", sa.String(210), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    for table, totals in COUNTED.items():
        for name, value in totals:
            name, value = name.format(row=table), value.format(row=table)
            op.execute(
                f"INSERT INTO totals SELECT {name}, SUM({value}) FROM {table} "
                "WHERE true GROUP BY 1 HAVING COUNT(*) > 0"
            )
    server = op.get_bind().dialect.name == "postgresql"
    for table in COUNTED:
        for event in _events(table):
            (_count_on_server if server else _count)(table, event)
    op.create_index("jobs_by_client_status", "jobs", ["client", "status", "sequence"])
    op.create_index("jobs_by_end", "jobs", ["finished_at", "sequence"])
    op.create_index(
        "jobs_from_pictures",
        "jobs",
        ["sequence"],
        sqlite_where=FROM_PICTURES,
        postgresql_where=FROM_PICTURES,
    )
    if server:
        for table in VACUUMED:
            op.execute(
                f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01, "
                "autovacuum_analyze_scale_factor = 0.01)"
            )


def downgrade() -> None:
    server = op.get_bind().dialect.name == "postgresql"
    for index in ("jobs_by_client_status", "jobs_by_end", "jobs_from_pictures"):
        op.drop_index(index, "jobs")
    for table in COUNTED:
        for event in _events(table):
            name = _name(table, event)
            op.execute(f"DROP TRIGGER {name} ON {table}" if server else f"DROP TRIGGER {name}")
            if server:
                op.execute(f"DROP FUNCTION {name}()")
    if server:
        for table in VACUUMED:
            op.execute(
                f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor, "
                "autovacuum_analyze_scale_factor)"
            )
    op.drop_table("totals")


def _events(table: str) -> list[str]:
    """What changes the totals of a table."""
    return ["INSERT", "DELETE", *(["UPDATE OF status"] if table == "jobs" else [])]


def _name(table: str, event: str) -> str:
    return f"{table}_counted_at_{event.split()[0].lower()}"


def _rows(table: str, event: str) -> str:
    """SQL for the statements that one row takes."""
    added = "".join(
        f"INSERT INTO totals VALUES ({name.format(row='NEW')}, {value.format(row='NEW')}) "
        "ON CONFLICT (name) DO UPDATE SET value = totals.value + excluded.value;\n"
        for name, value in COUNTED[table]
    )
    removed = "".join(
        f"UPDATE totals SET value = value - {value.format(row='OLD')} "
        f"WHERE name = {name.format(row='OLD')};\n"
        for name, value in COUNTED[table]
    )
    return {"INSERT": added, "DELETE": removed}.get(event, removed + added)


def _count(table: str, event: str) -> None:
    op.execute(
        f"CREATE TRIGGER {_name(table, event)} AFTER {event} ON {table} "
        f"BEGIN\n{_rows(table, event)}END"
    )


def _count_on_server(table: str, event: str) -> None:
    """As `_count`, but rows that come or go together change a total once.

    A row that one transaction changes very often gets slow there. The functions run with the rights
    of the tables' owner: roles of other machines may change jobs, and no totals.
    """
    if event == "UPDATE OF status":
        counting, rows, each = _rows(table, event), "", "ROW"
    else:
        sign, which = ("", "NEW") if event == "INSERT" else ("-", "OLD")
        changes = " UNION ALL ".join(
            f"SELECT {name.format(row='rows')} AS name, {value.format(row='rows')} AS value "
            "FROM rows"
            for name, value in COUNTED[table]
        )
        counting = (
            f"INSERT INTO totals SELECT name, {sign}SUM(value) FROM ({changes}) AS changes "
            "GROUP BY name ON CONFLICT (name) DO UPDATE SET value = totals.value + excluded.value;"
        )
        rows, each = f"REFERENCING {which} TABLE AS rows", "STATEMENT"
    op.execute(
        f"CREATE FUNCTION {_name(table, event)}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path FROM CURRENT AS $$ BEGIN {counting} RETURN NULL; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {_name(table, event)} AFTER {event} ON {table} {rows} "
        f"FOR EACH {each} EXECUTE FUNCTION {_name(table, event)}()"
    )
