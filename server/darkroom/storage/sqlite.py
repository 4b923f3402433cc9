"""SQLite: connections, durability, and which errors may pass."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

# By SQLite's primary result code (https://sqlite.org/rescode.html).
TEMPORARY = {
    sqlite3.SQLITE_BUSY: "another process has locked the database",
    sqlite3.SQLITE_LOCKED: "another process has locked the database",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_READONLY: "the database cannot be written",
}


def connect(path: Path, durable: bool, busy_timeout_s: float) -> Engine:
    """An SQLAlchemy engine for the SQLite file.

    Every transaction begins IMMEDIATE: a reader that later writes could otherwise fail with
    "database is locked" however long it is willing to wait
    (https://sqlite.org/lang_transaction.html).

    Args:
        durable: whether each commit survives a power cut. If not, the last commits may be lost in
            WAL mode, but nothing is corrupted.
        busy_timeout_s: how long a transaction waits for another process.
    """
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        hide_parameters=True,  # errors are logged, and parameters contain prompts
        pool_size=8,
        max_overflow=64,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun explicitly, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def passing(error: DBAPIError) -> tuple[str, bool] | None:
    """Why the database cannot be used now, and whether a disk is full; None for other errors."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return (TEMPORARY[code], code == sqlite3.SQLITE_FULL) if code in TEMPORARY else None


def shrink_log(path: Path) -> None:
    """Checkpoint and truncate the write-ahead log, unless a reader is using it.

    The database file itself does not shrink; free pages in it are reused.
    """
    with closing(sqlite3.connect(path, timeout=0.5)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
