"""The machines of a fleet: each has a role of its own in PostgreSQL, and that role is its record.

So there is nothing beside the server's own list of roles that could disagree with it: a box whose
role is gone can read and write nothing. The role's comment holds the rest as JSON. A box has one
secret, the role's password; the server keeps its SCRAM verifier, and the comment its SHA-256, by
which web knows the box.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, cast

from psycopg import Connection, sql
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from darkroom.errors import DarkroomError
from darkroom.storage.clients import digest, redeem_join_code
from darkroom.storage.database import Database
from darkroom.storage.tables import (
    ClientRow,
    EventRow,
    ExplanationRow,
    ImageRow,
    JobRow,
    SpeedRow,
    UnloadRow,
    UploadRow,
    WebhookRow,
    WorkerRow,
)

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")  # in a role's name of at most 63 bytes
SECRET_BYTES = 32
# What a worker does with each table. Tokens, devices, codes and settings of clients are not for it.
GRANTS: dict[str, str] = {
    "alembic_version": "SELECT",
    JobRow.__tablename__: "SELECT, UPDATE",
    EventRow.__tablename__: "SELECT, INSERT",
    ImageRow.__tablename__: "SELECT, INSERT",
    ExplanationRow.__tablename__: "SELECT, INSERT, UPDATE, DELETE",
    UploadRow.__tablename__: "SELECT",
    # Not the address, which may hold a password: only when a delivery is due.
    WebhookRow.__tablename__: "SELECT (job_id, state, due_at), UPDATE (state, due_at)",
    SpeedRow.__tablename__: "SELECT, INSERT, UPDATE",
    UnloadRow.__tablename__: "SELECT",
    WorkerRow.__tablename__: "SELECT, INSERT, UPDATE, DELETE",
    ClientRow.__tablename__: "SELECT, INSERT, UPDATE, DELETE",
}


class BoxError(DarkroomError):
    """Something about a box of the fleet is not possible. Says why and what to do."""


class WrongCodeError(BoxError):
    """The code is wrong, was used, or has expired."""


class NameTakenError(BoxError):
    """A box of this name has joined already."""


class NotAllowedError(BoxError):
    """The server's own role may not do this; the message has the SQL that allows it."""


@dataclass(frozen=True)
class Box:
    """A machine that has joined; `role` is its own in PostgreSQL. Times are since the epoch."""

    name: str
    role: str
    joined_at: float


class Boxes:
    """The boxes of the fleet. Safe to use from any number of threads and processes.

    Every method raises DatabaseUnavailableError while the database cannot be used, and
    NotAllowedError if the role of `storage.database_url` lacks CREATEROLE.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def join(self, code: str, name: str) -> tuple[Box, str]:
        """Exchange a code for a role of the box's own. Returns the box, and its secret.

        Code and role are one transaction: if the role cannot be made, the code stays valid.

        Raises:
            WrongCodeError: the code is not valid.
            NameTakenError: there is a box of this name.
            BoxError: it is no name.
        """
        if not NAME.fullmatch(name):
            raise BoxError(
                f"{name!r} cannot be a box's name: 1 to 32 small letters, digits and hyphens"
            )
        with self._writing() as (session, connection):
            now = self._clock()
            if not redeem_join_code(session, code, now):
                raise WrongCodeError(
                    "this code is wrong, was used before, or is too old; `darkroom fleet code` "
                    "on the first box makes a new one"
                )
            if any(box.name == name for box, _ in _all(session)):
                raise NameTakenError(
                    f"a box called {name} has joined already; choose another --name, or run "
                    f"`darkroom fleet remove {name}` on the first box"
                )
            box, secret = Box(name, _role(session, name), now), secrets.token_urlsafe(SECRET_BYTES)
            role = sql.Identifier(box.role)
            # A verifier, so that no log of the server's statements has the password.
            verifier = connection.pgconn.encrypt_password(
                secret.encode(), box.role.encode(), b"scram-sha-256"
            ).decode()
            options = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION")
            connection.execute(
                sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                    role, options, sql.Literal(verifier)
                )
            )
            about = {"joined_at": now, "secret": digest(secret), "name": name}
            connection.execute(
                sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(json.dumps(about)))
            )
            _grant(connection, role)
        return box, secret

    def all(self) -> list[Box]:
        """The boxes, in the order in which they joined."""
        with self._database.read() as session:
            return sorted((box for box, _ in _all(session)), key=lambda box: box.joined_at)

    def find(self, name: str, secret: str) -> Box | None:
        """The box of this name, if the secret is its own; else None."""
        with self._database.read() as session:
            for box, stored in _all(session):
                if box.name == name and compare_digest(stored, digest(secret)):
                    return box
        return None

    def remove(self, name: str) -> bool:
        """Revoke a box's role and end its connections. Returns whether there was one.

        What it had claimed returns to the queue when its leases end.
        """
        role = self._role(name)
        if role is None:
            return False
        mine = sql.Identifier(role)
        with self._writing() as (_, connection):
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(mine))
            # Since PostgreSQL 16 who made a role is no member of it, and ends no connection of it.
            connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(mine))
        # After the commit: until then the role could still connect.
        with self._writing() as (_, connection):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
            )
            connection.execute(sql.SQL("DROP OWNED BY {}").format(mine))
            connection.execute(sql.SQL("DROP ROLE {}").format(mine))
        return True

    def grant_again(self) -> None:
        """Give all boxes what workers need: after an upgrade that may be more than before."""
        for box in self.all():
            with self._writing() as (_, connection):
                _grant(connection, sql.Identifier(box.role))

    def _role(self, name: str) -> str | None:
        return next((box.role for box in self.all() if box.name == name), None)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Session, Connection[Any]]]:
        """A transaction, and psycopg's connection in it: its `sql` quotes names and literals."""
        try:
            with self._database.write() as session:
                raw = session.connection().connection.driver_connection
                yield session, cast("Connection[Any]", raw)
        except (InsufficientPrivilege, ProgrammingError) as error:
            found = error.orig if isinstance(error, ProgrammingError) else error
            if not isinstance(found, InsufficientPrivilege):
                raise
            raise NotAllowedError(
                "the role of storage.database_url may not make roles for other boxes "
                f"({str(found).splitlines()[0]}); as the database's superuser run: "
                "ALTER ROLE that_role CREATEROLE; it also has to own Darkroom's tables"
            ) from None


def _grant(connection: Connection[Any], role: sql.Identifier) -> None:
    database = connection.execute("SELECT current_database()").fetchone()
    schema = connection.execute("SELECT current_schema()").fetchone()
    assert database is not None
    assert schema is not None
    place = sql.Identifier(schema[0])
    connection.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database[0]), role)
    )
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(place, role))
    for table, rights in GRANTS.items():
        connection.execute(
            sql.SQL("GRANT {} ON {}.{} TO {}").format(
                sql.SQL(cast("Any", rights)), place, sql.Identifier(table), role
            )
        )
    numbers = sql.SQL("GRANT USAGE ON SEQUENCE {}.{} TO {}")
    connection.execute(numbers.format(place, sql.Identifier("events_id_seq"), role))


def _role(session: Session, name: str) -> str:
    """The role's name: roles belong to all databases of a server, a box to one."""
    number = session.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
    return f"{_prefix(number)}{name}"


def _prefix(number: object) -> str:
    return f"darkroom_{number}_"


def _all(session: Session) -> list[tuple[Box, str]]:
    """Each box of this database, and the digest of its secret."""
    rows = session.execute(
        text(
            "SELECT rolname, shobj_description(pg_roles.oid, 'pg_authid'), pg_database.oid "
            "FROM pg_roles, pg_database WHERE datname = current_database() AND "
            "starts_with(rolname, 'darkroom_' || pg_database.oid || '_')"
        )
    )
    found = []
    for role, comment, number in rows:
        about = json.loads(comment or "{}")
        name = role.removeprefix(_prefix(number))
        found.append((Box(name, role, about.get("joined_at", 0.0)), about.get("secret", "")))
    return found
