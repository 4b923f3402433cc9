"""What a PostgreSQL server adds: other hosts, lost connections, restarts."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from darkroom.config import Settings
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.queue.transitions import log
from darkroom.requests import Scope
from darkroom.responses import EventType, JobStatus
from darkroom.storage import postgresql
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database, DatabaseUnavailableError, Place
from darkroom.storage.records import NewEvent
from tests import postgres
from tests.queue.conftest import accept
from tests.queue.test_store import status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("another_place", ["postgresql"], indirect=True),
]

Hire = Callable[[str], Leases]


def test_a_claim_whose_commit_was_not_answered_is_the_workers(
    store: Store, worker: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server committed, and the connection broke before it said so."""
    job = accept(store)
    commit = psycopg.Connection.commit

    def unanswered(connection: psycopg.Connection[Any]) -> None:
        commit(connection)
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", unanswered)
    with pytest.raises(DatabaseUnavailableError):
        worker.claim(busy=False)
    monkeypatch.undo()
    assert status(store, job) is JobStatus.RUNNING

    claim = worker.claim(busy=False)

    assert claim is not None
    assert claim.job_id == job
    assert worker.claim(busy=False) is None


def test_a_claim_that_was_not_committed_is_made_again(
    store: Store, worker: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = accept(store)

    def lost(connection: psycopg.Connection[Any]) -> None:
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", lost)
    with pytest.raises(DatabaseUnavailableError):
        worker.claim(busy=False)
    monkeypatch.undo()

    claim = worker.claim(busy=False)

    assert claim is not None
    assert (claim.job_id, claim.attempt) == (job, 1)


def test_who_follows_the_events_misses_none_of_a_slow_transaction(
    place: Place, opened: Database, store: Store
) -> None:
    """The slow one began first and has the smaller ids. A follower sees both, in their order."""
    job = accept(store)
    last = store.last_event_id()
    slow_wrote, may_end = Event(), Event()

    def slowly() -> None:
        other = Database(place)
        with other.write() as session:
            log(session, 1.0, NewEvent(job, EventType.PROGRESS, {"step": 1}))
            session.flush()
            slow_wrote.set()
            may_end.wait(30)
        other.close()

    def quickly() -> None:
        with opened.write() as session:
            log(session, 2.0, NewEvent(job, EventType.PROGRESS, {"step": 2}))

    writers = [Thread(target=slowly), Thread(target=quickly)]
    writers[0].start()
    assert slow_wrote.wait(30)
    writers[1].start()
    seen = store.events_after(last)
    while waiting(opened) == 0:
        seen += store.events_after(last)
    assert seen == []  # nobody gets ahead of the slow one
    may_end.set()
    for writer in writers:
        writer.join()

    assert [event.data["step"] for event in store.events_after(last)] == [1, 2]


def waiting(database: Database) -> int:
    """How many transactions wait for a lock."""
    count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with database.read() as session:
        return int(session.scalar(text(count)) or 0)


def test_a_server_that_restarts_is_an_error_that_passes(
    store: Store, postgres_server: postgres.Server
) -> None:
    job = accept(store)

    postgres_server.kill()
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        store.last_event_id()
    postgres_server.start()

    assert status(store, job) is JobStatus.QUEUED


def test_a_writer_that_falls_silent_holds_nobody_up_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Such as a process that is stopped, or a host that is cut off."""
    monkeypatch.setattr(postgresql, "SILENT_S", 1)
    silent = Database(place)

    def write() -> None:
        with silent.write() as session:
            session.execute(text("SELECT 1"))
            accept(store)  # waits for it
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailableError):
        write()
    silent.close()


def test_a_database_of_more_connections_than_there_are_is_busy(place: Place) -> None:
    small = Database(place, busy_timeout_s=0.1)
    sessions = [small.read() for _ in range(24)]
    for session in sessions:
        session.__enter__().execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailableError, match="in use"), small.read() as session:
        session.execute(text("SELECT 1"))

    for session in sessions:
        session.__exit__(None, None, None)
    small.close()


@pytest.mark.parametrize(
    "url", ["sqlite:///other.db", "mysql://u@h/d", "postgresql://h", "nonsense", ""]
)
@pytest.mark.usefixtures("another_place")
def test_a_url_that_is_of_no_such_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"postgresql\+psycopg://USER:PASSWORD@HOST/DATABASE"):
        Settings(storage={"database_url": url})


def test_a_character_that_the_server_has_not_is_in_no_name(store: Store) -> None:
    """Callers may send character 0 in an id or a name."""
    job = accept(store)
    name = "a\0phone"

    assert store.picture(f"{job}\0", None) is None
    tokens = Tokens(store.database)
    tokens.create(name, Scope.USE)
    (device,) = tokens.devices()
    assert device.name == "a\N{REPLACEMENT CHARACTER}phone"
