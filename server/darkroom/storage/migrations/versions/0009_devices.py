"""What tokens had made belongs to devices, which may get other tokens; one is made per token"""

import itertools
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

revision = "0009"
down_revision = "0008"

OWNED = ("jobs", "uploads", "clients", "client_options")
LONGEST_NAME = 100


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.UniqueConstraint("name"),
    )
    _make_devices()
    _with_another_table(
        "tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("device_id", sa.String(32), sa.ForeignKey("devices.id"), nullable=False),
        *_kept_of_tokens(),
        copy="INSERT INTO tokens SELECT id, id, scope, digest, created_at, used_at, revoked_at",
    )
    op.create_index("ix_tokens_device_id", "tokens", ["device_id"])
    _with_another_table(
        "pairing_codes",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("device_id", sa.String(32), sa.ForeignKey("devices.id")),
        *_kept_of_codes(),
        copy="INSERT INTO pairing_codes SELECT digest, NULL, scope, created_at, expires_at",
    )
    for table in OWNED:
        op.execute(
            f"UPDATE {table} SET client = 'device:' || substr(client, 7) "
            "WHERE client LIKE 'token:%'"
        )


def downgrade() -> None:
    """What a device had made belongs to the oldest of its tokens."""
    for table in OWNED:
        op.execute(
            f"UPDATE {table} SET client = 'token:' || coalesce("
            "(SELECT id FROM tokens WHERE device_id = substr(client, 8) ORDER BY created_at), "
            "substr(client, 8)) WHERE client LIKE 'device:%'"
        )
    _with_another_table(
        "tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        *_kept_of_tokens(),
        copy="INSERT INTO tokens SELECT id, (SELECT name FROM devices WHERE id = device_id), "
        "scope, digest, created_at, used_at, revoked_at",
    )
    _with_another_table(
        "pairing_codes",
        sa.Column("digest", sa.String(64), primary_key=True),
        *_kept_of_codes(),
        copy="INSERT INTO pairing_codes SELECT digest, scope, created_at, expires_at",
    )
    op.drop_table("devices")


def _make_devices() -> None:
    """Make a device of the same id and name for each token. A name that is taken gets a number.

    Tokens that are valid come first, since people know these by name.
    """
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(
            "SELECT id, name, created_at FROM tokens ORDER BY revoked_at IS NOT NULL, created_at"
        )
    ).all()
    taken: set[str] = set()
    for token_id, name, created_at in rows:
        own = next(found for found in _numbered(name) if found.casefold() not in taken)
        taken.add(own.casefold())
        connection.execute(
            sa.text("INSERT INTO devices VALUES (:id, :name, :created_at)"),
            {"id": token_id, "name": own, "created_at": created_at},
        )
        if own != name:
            connection.execute(
                sa.text("UPDATE jobs SET client_name = :name WHERE client = :client"),
                {"name": own, "client": f"token:{token_id}"},
            )


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        end = f" {number}"
        yield name[: LONGEST_NAME - len(end)].rstrip() + end


def _with_another_table(table: str, *columns: SchemaItem, copy: str) -> None:
    """Make a table anew, with other columns. `copy` is what goes before `FROM` the old one."""
    op.rename_table(table, f"old_{table}")
    op.create_table(table, *columns)
    op.execute(f"{copy} FROM old_{table}")
    op.drop_table(f"old_{table}")


def _kept_of_tokens() -> tuple[SchemaItem, ...]:
    return (
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float()),
        sa.Column("revoked_at", sa.Float()),
        sa.UniqueConstraint("digest"),
    )


def _kept_of_codes() -> tuple[SchemaItem, ...]:
    return (
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
    )
