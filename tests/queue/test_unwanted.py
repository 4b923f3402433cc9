"""Jobs that need their caller: they end when nobody has waited for them for a while."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from darkroom.api.callers import Callers, Hold
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from tests.queue.conftest import ME, Clock, accept, new_job

AWAY_S = 60.0


@pytest.fixture
def callers(store: Store) -> Callers:
    return Callers(store, AWAY_S)


def ask(callers: Callers, **how: object) -> tuple[str, Hold]:
    hold = Hold()
    about = {"collapses": True, "wanted_s": AWAY_S, **how}
    job, _ = callers.accept(new_job(**about), hold)  # type: ignore[arg-type]
    return job.id, hold


def status(store: Store, job_id: str) -> JobStatus:
    job = store.job(job_id, None)
    assert job is not None
    return job.status


def test_a_job_ends_when_its_caller_has_been_away_for_long_enough(
    callers: Callers, store: Store, clock: Clock
) -> None:
    job_id, hold = ask(callers)
    for _ in range(10):
        clock.now += AWAY_S / 4
        assert callers.end_unwanted() == 0
    hold.ended = True
    assert callers.end_unwanted() == 0
    clock.now += AWAY_S - 0.1
    assert callers.end_unwanted() == 0
    clock.now += 0.2

    assert callers.end_unwanted() == 1
    assert status(store, job_id) is JobStatus.CANCELLED
    assert callers.end_unwanted() == 0


def test_a_running_one_ends_at_its_next_step(
    callers: Callers, worker: Leases, clock: Clock
) -> None:
    job_id, hold = ask(callers)
    callers.end_unwanted()
    worker.claim(busy=False)
    hold.ended = True
    callers.end_unwanted()
    clock.now += AWAY_S

    assert callers.end_unwanted() == 1
    assert worker.cancel_requests() == [job_id]
    assert callers.end_unwanted() == 0


def test_a_retry_at_the_last_moment_keeps_it(callers: Callers, store: Store, clock: Clock) -> None:
    job_id, hold = ask(callers)
    callers.end_unwanted()
    hold.ended = True
    callers.end_unwanted()
    clock.now += AWAY_S

    assert ask(callers)[0] == job_id
    assert callers.end_unwanted() == 0
    assert status(store, job_id) is JobStatus.QUEUED


def test_a_retry_a_moment_later_makes_a_new_one(callers: Callers, clock: Clock) -> None:
    job_id, hold = ask(callers, key="k", collapses=False)
    callers.end_unwanted()
    hold.ended = True
    callers.end_unwanted()
    clock.now += AWAY_S
    callers.end_unwanted()

    assert ask(callers, key="k", collapses=False)[0] != job_id


def test_of_a_retry_and_the_end_at_once_either_comes_first(opened: Database, clock: Clock) -> None:
    """Never both: a caller who waits for a job that ends as unwanted."""
    store = Store(opened, clock)
    for _ in range(20):
        callers = Callers(store, AWAY_S)
        job_id, hold = ask(callers)
        callers.end_unwanted()
        hold.ended = True
        callers.end_unwanted()
        clock.now += AWAY_S
        together = Barrier(2)

        def at_once(call: object, together: Barrier = together) -> object:
            together.wait()
            return call()  # type: ignore[operator]

        with ThreadPoolExecutor(2) as threads:
            ended = threads.submit(at_once, callers.end_unwanted)
            joined = threads.submit(at_once, lambda callers=callers: ask(callers))

        (found, again), count = joined.result(), ended.result()
        assert (found == job_id) == (count == 0)
        assert status(store, found) is JobStatus.QUEUED
        again.ended = True
        store.cancel(found, ME)


def test_the_next_process_gives_everybody_time(store: Store, clock: Clock) -> None:
    job_id, _ = ask(Callers(store, AWAY_S))
    clock.now += 10 * AWAY_S  # so long nobody served
    following = Callers(store, AWAY_S)

    assert following.end_unwanted() == 0
    clock.now += AWAY_S - 1
    assert following.end_unwanted() == 0
    assert ask(following)[0] == job_id
    clock.now += AWAY_S
    assert following.end_unwanted() == 0


def test_the_next_process_ends_what_nobody_came_back_for(store: Store, clock: Clock) -> None:
    ask(Callers(store, AWAY_S))
    following = Callers(store, AWAY_S)
    following.end_unwanted()
    clock.now += AWAY_S

    assert following.end_unwanted() == 1


def test_a_clock_that_is_set_ends_nothing_that_is_held_and_postpones_nothing_for_long(
    callers: Callers, store: Store, clock: Clock
) -> None:
    held, _ = ask(callers)
    left, hold = ask(callers, fingerprint="g")
    callers.end_unwanted()
    hold.ended = True
    callers.end_unwanted()
    clock.set_by = -1_000_000.0
    assert callers.end_unwanted() == 0
    clock.now += AWAY_S
    assert callers.end_unwanted() == 1
    clock.set_by = 1_000_000.0

    assert callers.end_unwanted() == 0
    assert status(store, held) is JobStatus.QUEUED
    assert status(store, left) is JobStatus.CANCELLED


def test_jobs_that_need_no_caller_go_on(callers: Callers, store: Store, clock: Clock) -> None:
    job_id, hold = ask(callers, wanted_s=None)
    callers.end_unwanted()
    hold.ended = True
    callers.end_unwanted()
    clock.now += 10 * AWAY_S

    assert callers.end_unwanted() == 0
    assert status(store, job_id) is JobStatus.QUEUED


def test_a_job_is_cancelled_by_the_last_who_leaves(callers: Callers, store: Store) -> None:
    (job_id, first), (same, second) = (ask(callers, key="k", collapses=False) for _ in range(2))
    assert same == job_id

    first.ended = True
    callers.cancel(job_id, first, ME)
    assert status(store, job_id) is JobStatus.QUEUED
    callers.cancel(job_id, second, ME)
    assert status(store, job_id) is JobStatus.CANCELLED


def test_whoever_leaves_cancels_nothing_that_another_joins_at_once(opened: Database) -> None:
    store = Store(opened)
    for number in itertools.islice(itertools.count(), 20):
        callers = Callers(store, AWAY_S)
        key = f"k{number}"
        job_id, hold = ask(callers, key=key, collapses=False)
        hold.ended = True
        with ThreadPoolExecutor(2) as threads:
            leaving = threads.submit(callers.cancel, job_id, hold, ME)
            joining = threads.submit(ask, callers, key=key, collapses=False)
            leaving.result()

        found, _ = joining.result()
        assert status(store, found) is JobStatus.QUEUED
        assert accept(store, key=key) == found
        store.cancel(found, ME)
