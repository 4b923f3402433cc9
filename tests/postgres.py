"""The PostgreSQL server of the tests."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import postgres
from benchmarks.postgres import Server
from tests.programs import program

__all__ = ["Server", "running"]


@contextmanager
def running(address: str | None = None) -> Iterator[Server]:
    """Context with a server; the test is skipped where Debian's package is not installed.

    Args:
        address: as for `benchmarks.postgres.running`.
    """
    program("pg_createcluster")
    with postgres.running(address, synced=False) as server:
        yield server
