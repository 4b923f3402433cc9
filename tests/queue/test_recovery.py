"""Workers die, and clocks are set: whose fault it was, and who may take whose jobs."""

from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.responses import Job, JobStatus
from tests.queue.conftest import ME, Clock, Hire, accept

HOUR_S = 3600.0


def found(store: Store, job_id: str) -> Job:
    job = store.job(job_id, ME)
    assert job is not None
    return job


def beat(worker: Leases) -> None:
    worker.heartbeat(ready=True, device="cpu", max_in_flight=4)


# --- poison --------------------------------------------------------------------------------


def test_a_crash_with_several_in_flight_counts_against_none(store: Store, worker: Leases) -> None:
    jobs = [accept(store) for _ in range(3)]
    for _ in jobs:
        worker.claim(busy=True)

    assert worker.recover_own() == 3

    assert [found(store, job).attempts for job in jobs] == [0, 0, 0]
    assert [found(store, job).status for job in jobs] == [JobStatus.QUEUED] * 3


def test_they_are_tried_again_apart(store: Store, worker: Leases) -> None:
    jobs = [accept(store) for _ in range(2)]
    for _ in jobs:
        worker.claim(busy=True)
    worker.recover_own()
    healthy = accept(store)

    assert worker.claim(busy=True) is None
    for job in jobs:
        claim = worker.claim(busy=False)
        assert claim is not None
        assert (claim.job_id, claim.attempt, claim.isolated) == (job, 1, True)
        assert worker.claim(busy=True) is None or job == jobs[-1]
        if job == jobs[0]:
            worker.finish(job, JobStatus.SUCCEEDED)
    assert found(store, healthy).status is JobStatus.RUNNING


def test_the_one_that_kills_comes_to_an_end_and_the_others_do_not(
    store: Store, worker: Leases
) -> None:
    poison, healthy = accept(store), accept(store)
    worker.claim(busy=False), worker.claim(busy=True)
    worker.recover_own()  # which of them was it?
    while claim := worker.claim(busy=False):
        if claim.job_id == poison:
            worker.recover_own()
        else:
            worker.finish(claim.job_id, JobStatus.SUCCEEDED)

    failed = found(store, poison)
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 3)
    assert failed.error is not None
    assert failed.error.type == "urn:darkroom:problem:interrupted"
    assert found(store, healthy).status is JobStatus.SUCCEEDED


def test_jobs_of_a_worker_that_was_stopped_in_order_may_have_company(
    store: Store, worker: Leases
) -> None:
    accept(store), accept(store)
    worker.claim(busy=False), worker.claim(busy=True)
    worker.give_back()

    assert worker.claim(busy=False) is not None
    assert worker.claim(busy=True) is not None


def test_a_cancelled_job_that_is_handed_back_is_cancelled(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    store.cancel(job, ME)

    assert worker.give_back() == 0
    assert found(store, job).status is JobStatus.CANCELLED


# --- clocks --------------------------------------------------------------------------------


def test_a_worker_does_not_take_its_own_jobs_however_long_it_slept(
    store: Store, clock: Clock, worker: Leases
) -> None:
    job = accept(store)
    worker.claim(busy=False)
    clock.now += HOUR_S

    assert worker.recover_lapsed() == 0
    worker.finish(job, JobStatus.SUCCEEDED)


def test_a_clock_set_forward_takes_nobodys_jobs(store: Store, clock: Clock, hire: Hire) -> None:
    one, two = hire("one"), hire("two")
    job = accept(store)
    one.claim(busy=False)
    two.recover_lapsed()
    clock.set_by += HOUR_S
    clock.now += 5

    assert two.recover_lapsed() == 0
    beat(one)
    clock.now += 28
    assert two.recover_lapsed() == 0
    one.finish(job, JobStatus.SUCCEEDED)


def test_a_clock_set_back_leaves_no_job_behind(store: Store, clock: Clock, hire: Hire) -> None:
    dead, alive = hire("dead"), hire("alive")
    job = accept(store)
    dead.claim(busy=False)
    clock.set_by -= HOUR_S
    alive.recover_lapsed()
    clock.now += 31

    assert alive.recover_lapsed() == 1
    claim = alive.claim(busy=False)
    assert claim is not None
    alive.finish(job, JobStatus.SUCCEEDED)
    assert found(store, job).status is JobStatus.SUCCEEDED


def test_who_beats_between_the_look_and_the_taking_keeps_its_jobs(
    store: Store, clock: Clock, hire: Hire
) -> None:
    """A frozen worker comes back: what it still holds stays its own."""
    frozen, other = hire("frozen"), hire("other")
    job = accept(store)
    frozen.claim(busy=False)
    other.recover_lapsed()
    clock.now += 31
    beat(frozen)

    assert other.recover_lapsed() == 0
    assert found(store, job).status is JobStatus.RUNNING


def test_a_newly_started_worker_waits_a_lease_before_it_judges(
    store: Store, clock: Clock, hire: Hire
) -> None:
    accept(store)
    hire("dead").claim(busy=False)
    clock.now += HOUR_S
    starting = hire("starting")

    assert starting.recover_lapsed() == 0
    clock.now += 31
    assert starting.recover_lapsed() == 1
