"""A queue has an end, and says when to come again."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, event

from darkroom.config import QueueSettings
from darkroom.queue.estimate import Kind, Speed
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.queue.transitions import QueueFullError
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from tests.queue.conftest import ME, Clock, accept, new_job

STEP_S = 1.0  # so that a job of six steps takes eight seconds
SPEED = Kind("tintype", 128 * 128, 1), Speed(STEP_S, 2.0)


@pytest.fixture
def small(opened: Database, clock: Clock) -> Store:
    """A queue for three jobs, two of them one client's."""
    return Store(opened, clock, settings=QueueSettings(max_pending=3, max_pending_per_client=2))


def refused(store: Store, client: str = ME) -> QueueFullError:
    with pytest.raises(QueueFullError) as refusal:
        accept(store, client)
    return refusal.value


def queued(store: Store) -> int:
    return len(store.jobs(None, before=None, limit=10, status="queued")[0])


def test_one_client_may_not_fill_the_queue(small: Store) -> None:
    for _ in range(2):
        accept(small, "a")

    found = refused(small, "a")

    assert (found.whose, found.pending) == ("client", 2)
    assert accept(small, "b")


def test_all_together_may_not_overfill_it(small: Store) -> None:
    for client in "abc":
        accept(small, client)

    found = refused(small, "d")

    assert (found.whose, found.pending) == ("all", 3)
    assert queued(small) == 3


def test_running_jobs_count_and_ended_ones_do_not(small: Store, worker: Leases) -> None:
    accept(small)
    job = accept(small)
    claim = worker.claim(busy=False)
    assert claim is not None
    refused(small)

    small.cancel(job, ME)
    accept(small)
    refused(small)
    worker.finish(claim.job_id, JobStatus.SUCCEEDED)
    accept(small)


def test_who_is_refused_is_told_when_the_first_place_will_be_free(
    small: Store, worker: Leases
) -> None:
    worker.learn_speed(*SPEED)
    accept(small, "a")
    for _ in range(2):
        accept(small, "b")

    assert refused(small, "c").retry_after_s == 8  # any job
    assert refused(small, "b").retry_after_s == 16  # one of theirs, which is second


def test_without_a_measurement_it_is_a_guess(small: Store) -> None:
    for _ in range(2):
        accept(small)

    assert refused(small).retry_after_s == 5


def test_nobody_is_sent_away_for_more_than_ten_minutes(small: Store, worker: Leases) -> None:
    worker.learn_speed(SPEED[0], Speed(1000.0, 0.0))
    for _ in range(2):
        accept(small)

    assert refused(small).retry_after_s == 600


def test_a_repeat_is_never_refused(small: Store) -> None:
    first, _ = accept(small, key="k"), accept(small)

    assert accept(small, key="k") == first
    small.check_room(ME, "k")
    with pytest.raises(QueueFullError):
        small.check_room(ME, "another")


def test_a_crowd_at_the_last_place_gets_one_in(opened: Database) -> None:
    store = Store(opened, settings=QueueSettings(max_pending=3))
    accept(store), accept(store)
    barrier = Barrier(8)

    def push(number: int) -> bool:
        barrier.wait()
        try:
            accept(store, f"client {number}")
        except QueueFullError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(push, range(8))) == 1
    assert queued(store) == 3


# --- the same again ------------------------------------------------------------------------


def test_the_same_again_collapses_into_the_unfinished_one(store: Store, worker: Leases) -> None:
    first = accept(store, collapses=True)
    assert accept(store, collapses=True) == first

    worker.claim(busy=False)
    assert accept(store, collapses=True) == first

    worker.finish(first, JobStatus.SUCCEEDED)
    assert accept(store, collapses=True) != first


def test_only_the_same_of_the_same_client_collapses_and_only_if_asked(store: Store) -> None:
    first = accept(store)

    assert accept(store) != first
    assert accept(store, client="another", collapses=True) != first
    assert accept(store, fingerprint="different", collapses=True) != first


def test_nothing_collapses_into_a_job_that_is_being_cancelled(store: Store, worker: Leases) -> None:
    first = accept(store, collapses=True)
    worker.claim(busy=False)
    store.cancel(first, ME)

    assert accept(store, collapses=True) != first


def test_a_job_that_somebody_waits_for_is_shared_with_a_retry_alone(store: Store) -> None:
    awaited = accept(store, collapses=True)
    same = new_job(collapses=True)

    other, fresh = store.accept(same, {awaited})
    assert fresh
    assert store.accept(same, {awaited})[0].id == other.id  # nobody waits for this one

    retry = new_job(collapses=True, is_retry=True)
    assert store.accept(retry, {awaited})[0].id == other.id
    assert store.accept(retry, {awaited, other.id})[0].id == awaited
    assert store.accept(same, {awaited, other.id})[1]


@pytest.mark.parametrize("how", [{"collapses": True}, {"key": "k"}])
def test_the_same_twice_at_once_is_one_job(opened: Database, how: dict[str, object]) -> None:
    store = Store(opened)
    barrier = Barrier(2)

    def ask(_: int) -> tuple[str, bool]:
        barrier.wait()
        job, fresh = store.accept(new_job(**how))  # type: ignore[arg-type]
        return job.id, fresh

    with ThreadPoolExecutor(2) as pool:
        (one, fresh), (other, also_fresh) = pool.map(ask, range(2))

    assert one == other
    assert fresh != also_fresh


@pytest.mark.parametrize("another_place", ["sqlite"], indirect=True)
def test_accepting_reads_no_queued_job_but_from_an_index(store: Store, opened: Database) -> None:
    """So that it takes no longer when many are queued."""
    accept(store)
    statements: list[tuple[str, tuple[object, ...]]] = []

    def note(_connection: object, _cursor: object, sql: str, values: Any, *_: object) -> None:
        statements.append((sql, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        accept(store, "b")
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    plans = []
    with opened.read() as session:
        for sql, values in statements:
            if sql.startswith("SELECT") and "FROM jobs" in sql:
                rows = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
                plans += [row[-1] for row in rows]
    assert "SEARCH jobs USING COVERING INDEX jobs_queued (status=?)" in plans
    assert "USE TEMP B-TREE FOR GROUP BY" not in plans
