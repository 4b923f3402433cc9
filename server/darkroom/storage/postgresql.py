"""PostgreSQL: connections, durability, one writer at a time, and which errors may pass."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import Buffer
    from psycopg.adapt import Dumper

# Of the advisory lock that each writing transaction holds, as SQLite's are one at a time. So the
# ids of events are in the order of commits, and a claim sees all claims before it.
WRITERS = 0x6461726B726F6F6D
CONNECT_TIMEOUT_S = 5
# After which the server ends a transaction of a client that is stopped or out of reach: until
# then nobody else can write.
SILENT_S = 15

# By the class of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
UNREACHABLE = "the database server cannot be reached"
TEMPORARY = {
    "08": UNREACHABLE,
    "53": "the database server lacks resources",
    "57": "the database server stops, starts, or has ended the connection",
    "58": "the database server's disk cannot be read or written",
}
TEMPORARY_STATES = {
    "25006": "the database cannot be written",
    "25P03": "the transaction took too long",
    "40001": "another transaction was in the way",
    "40P01": "another transaction was in the way",
    "53100": "the disk is full",
    "55P03": "another process has locked the database",
}
FULL = "53100"


def connect(url: URL, busy_timeout_s: float) -> Engine:
    """An SQLAlchemy engine for the database.

    Transactions of its `relaxed` execution option are not synced: the server may lose the last of
    them in a power cut. Those of its `read_only` option see one state and wait for nobody.

    Args:
        busy_timeout_s: how long a transaction waits for another writer, or for a connection.
    """
    engine = create_engine(
        url,
        connect_args=_connect_args(
            lock_timeout=f"{busy_timeout_s * 1000:.0f}",
            idle_in_transaction_session_timeout=f"{SILENT_S * 1000}",
        ),
        hide_parameters=True,  # errors are logged, and parameters contain prompts
        pool_pre_ping=True,  # a connection of before a restart of the server is replaced
        pool_size=8,
        max_overflow=16,  # of the 100 connections that a server takes by default
        pool_timeout=busy_timeout_s,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        from psycopg.types.numeric import IntLoader

        connection.adapters.register_dumper(str, _text_dumper())
        connection.adapters.register_loader("numeric", IntLoader)  # sums of whole numbers

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        options = connection.get_execution_options()
        if options.get("read_only", False):
            begun = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        else:
            begun = f"SELECT pg_advisory_xact_lock({WRITERS})"
            if options.get("relaxed", False):
                begun = f"SET LOCAL synchronous_commit = off; {begun}"
        connection.exec_driver_sql(begun)

    return engine


def _text_dumper() -> "type[Dumper]":
    """Writes text for PostgreSQL, which has no character 0; callers may send one in a name."""
    from psycopg.types.string import StrDumperUnknown

    class TextDumper(StrDumperUnknown):
        def dump(self, obj: str) -> "Buffer | None":
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))

    return TextDumper


def connect_alone(url: URL) -> "psycopg.Connection":
    """A connection outside all pools, each of whose statements is a transaction that is not synced.

    Raises:
        psycopg.Error: the database cannot be reached.
    """
    import psycopg

    _, named = url.get_dialect()().create_connect_args(url)
    return psycopg.connect(**{**named, **_connect_args(synchronous_commit="off")}, autocommit=True)


def _connect_args(**settings: str) -> dict[str, Any]:
    """How to connect, with settings of the session."""
    settings |= {
        "tcp_keepalives_idle": f"{SILENT_S}",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "2",
        "tcp_user_timeout": f"{SILENT_S * 1000}",
        "timezone": "UTC",
    }
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "darkroom",
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        # The client's side of the same: a server that is out of reach.
        "keepalives_idle": SILENT_S,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENT_S * 1000,
    }


def passing(error: DBAPIError) -> tuple[str, bool] | None:
    """Why the database cannot be used now, and whether a disk is full; None for other errors."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return (UNREACHABLE, False) if _is_of_the_connection(error) else None
    reason = TEMPORARY_STATES.get(state) or TEMPORARY.get(state[:2])
    return None if reason is None else (reason, state == FULL)


def _is_of_the_connection(error: DBAPIError) -> bool:
    from psycopg import InterfaceError, OperationalError

    return error.connection_invalidated or isinstance(error.orig, OperationalError | InterfaceError)
