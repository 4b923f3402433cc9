"""Several workers on one queue: who does what, and what a worker that was away cannot do."""

import json
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from darkroom.catalog import published
from darkroom.catalog.model_entry import NumberBytes
from darkroom.engine.base import EngineMemory
from darkroom.queue.leases import LeaseLostError, Leases, NameTakenError
from darkroom.queue.presence import Fleets, UnknownWorkerError, Workers
from darkroom.queue.store import Store
from darkroom.requests import Lora
from darkroom.responses import JobStatus
from darkroom.storage.database import Database, Place
from darkroom.storage.tables import ImageRow
from tests.queue.conftest import Clock, Hire, accept


def beat(worker: Leases, resident: str = "", **about: object) -> bool:
    """A heartbeat of a worker with these models, by letters, in memory."""
    memory = EngineMemory(10**9, NumberBytes(4, 4), dict.fromkeys(resident, 1))
    return worker.heartbeat(
        ready=True, device=worker.device, max_in_flight=4, memory=memory, about=about
    )


def claimed(worker: Leases, **how: object) -> str | None:
    """The id of the job that a worker claims now."""
    claim = worker.claim(busy=False, **how)  # type: ignore[arg-type]
    return None if claim is None else claim.job_id


@pytest.fixture
def cpu(opened: Database, clock: Clock) -> Callable[..., Leases]:
    """Workers with more settings, on a CPU unless they say otherwise."""

    def make(name: str, **more: object) -> Leases:
        how: dict[str, object] = {"device": "cpu", "affinity_s": 20, **more}
        return Leases(
            opened,
            name,
            lease_s=30,
            max_attempts=3,
            clock=clock,
            monotonic=clock.monotonic,
            **how,  # type: ignore[arg-type]
        )

    return make


# --- what was taken over ---------------------------------------------------------------------


def test_a_process_that_was_cut_off_changes_nothing_that_was_taken_over(
    store: Store, hire: Hire, clock: Clock
) -> None:
    away, other = hire("a"), hire("b")
    job = accept(store)
    away.claim(busy=False)
    beat(away)
    other.recover_lapsed()
    clock.now += 31

    assert other.recover_lapsed() == 1
    assert claimed(other) == job
    beat(away)  # it is back
    with pytest.raises(LeaseLostError):
        away.finish(job, JobStatus.SUCCEEDED)
    with pytest.raises(LeaseLostError):
        away.add_image(picture(job))
    other.finish(job, JobStatus.SUCCEEDED)
    assert store.job(job, None).worker == "b"  # type: ignore[union-attr]


def test_nor_can_one_whose_name_another_process_has(store: Store, hire: Hire) -> None:
    """As when a worker is started again on another machine while the first one is cut off."""
    away, again = hire("a"), hire("a")
    job = accept(store)
    away.claim(busy=False)
    assert beat(away)

    assert beat(again)
    assert again.recover_own() == 1
    assert claimed(again) == job
    assert not beat(away)
    with pytest.raises(LeaseLostError):
        away.finish(job, JobStatus.FAILED)
    assert away.give_back() == 0
    again.finish(job, JobStatus.SUCCEEDED)


def test_a_name_that_lives_elsewhere_is_not_taken(hire: Hire, clock: Clock) -> None:
    there, here = hire("a"), hire("a")
    beat(there, folder="there")

    def goes_on(seconds: float) -> None:
        clock.now += seconds
        beat(there, folder="there")

    with pytest.raises(NameTakenError, match=r"worker\.name"):
        here.wait_for_name("here", goes_on)


def test_a_name_whose_worker_is_dead_is_taken_after_its_lease(hire: Hire, clock: Clock) -> None:
    dead, here = hire("a"), hire("a")
    beat(dead, folder="there")
    began = clock.now

    def passes(seconds: float) -> None:
        clock.now += seconds

    here.wait_for_name("here", passes)
    assert 30 < clock.now - began < 32
    hire("a").wait_for_name("there", passes)  # in the same folder the lock file says so at once
    assert clock.now - began < 32


def picture(job: str) -> ImageRow:
    kind = {"content_type": "image/png", "bytes": 1, "sha256": "0" * 64}
    return ImageRow(id=f"{job}-0", job_id=job, index=0, seed=1, width=8, height=8, **kind)


def test_jobs_and_images_say_where_they_were_made(store: Store, cpu: Callable[..., Leases]) -> None:
    worker = cpu("attic", device="cuda")
    job = accept(store)
    worker.claim(busy=False)
    worker.add_image(picture(job))
    worker.finish(job, JobStatus.SUCCEEDED)

    found = store.job(job, None)
    assert found is not None
    assert (found.worker, found.device) == ("attic", "cuda")
    assert (found.images[0].worker, found.images[0].device) == ("attic", "cuda")


# --- who does what -----------------------------------------------------------------------------


def test_a_worker_claims_only_what_it_has(store: Store, cpu: Callable[..., Leases]) -> None:
    small = cpu("small", has=lambda model, loras: model == "b" and not loras)
    first, lora = accept(store, model="a"), accept(store, model="b", loras=[Lora(name="x")])
    able = accept(store, model="b")

    assert claimed(small) == able
    assert claimed(small) is None
    assert claimed(cpu("large")) == first
    assert claimed(cpu("large")) == lora


def test_a_job_is_left_for_an_idle_worker_that_has_its_model_in_memory(
    store: Store, cpu: Callable[..., Leases], clock: Clock
) -> None:
    cold, warm = cpu("cold"), cpu("warm")
    beat(cold)
    beat(warm, resident="a")
    beat(cold)
    first, second, other = (accept(store, model=model) for model in "aab")

    assert claimed(cold) == other
    assert claimed(warm, here={"a"}) == first
    assert claimed(cold) == second  # warm is not idle now
    third = accept(store, model="a")
    warm.finish(first, JobStatus.SUCCEEDED)
    assert claimed(cold) is None
    clock.now += 20
    beat(warm, resident="a")
    assert claimed(cold) == third  # it had its time


def test_jobs_are_spread_over_workers_that_have_their_model_in_memory(
    store: Store, cpu: Callable[..., Leases], clock: Clock
) -> None:
    one, two = cpu("one"), cpu("two")
    for worker in (one, two, one):
        beat(worker, resident="a")
    first, second, third, fourth = (accept(store, model="a") for _ in range(4))

    assert claimed(one, here={"a"}) == first
    assert claimed(one, here={"a"}) is None
    assert claimed(two, here={"a"}) == second
    assert claimed(two, here={"a"}) == third
    assert claimed(two, here={"a"}) is None
    clock.now += 1  # the other one does not come
    assert claimed(two, here={"a"}) == fourth


def test_a_worker_that_drains_or_resumes_is_known_at_once(
    store: Store, cpu: Callable[..., Leases], clock: Clock
) -> None:
    one, two, workers = cpu("one"), cpu("two"), Workers(store.database, clock)
    for worker in (one, two, one):
        beat(worker, resident="a")
    workers.drain("two", draining=True)
    clock.now += 0.5
    first, second, third = (accept(store, model="a") for _ in range(3))

    assert claimed(one, here={"a"}) == first
    assert claimed(one, here={"a"}) == second
    workers.drain("two", draining=False)
    clock.now += 0.5
    assert claimed(one, here={"a"}) is None
    beat(two, resident="a")
    assert claimed(two, here={"a"}) == third


def test_an_interrupted_job_goes_to_the_same_kind_of_device_if_one_is_left(
    store: Store, cpu: Callable[..., Leases]
) -> None:
    gpu, another, slow = cpu("gpu", device="cuda:0"), cpu("gpu-1", device="cuda:1"), cpu("slow")
    for worker in (gpu, another, slow, slow):
        beat(worker)
    job = accept(store)
    gpu.claim(busy=False)
    cpu("gpu").recover_own()

    assert claimed(slow) is None
    Workers(store.database, store.clock).drain("gpu", True)
    Workers(store.database, store.clock).drain("gpu-1", True)
    beat(slow)
    assert claimed(slow) == job


def test_a_worker_that_is_told_to_drain_claims_nothing_new(
    store: Store, hire: Hire, clock: Clock
) -> None:
    worker, workers = hire("a"), Workers(store.database, clock)
    beat(worker)
    first, second = accept(store), accept(store)
    assert claimed(worker) == first

    assert workers.drain("a", True).draining
    assert claimed(worker) is None
    beat(worker)
    worker.finish(first, JobStatus.SUCCEEDED)
    (found,) = workers.all()
    assert (found.draining, found.jobs_in_flight, found.alive) == (True, 0, True)
    worker.give_back()
    again = hire("a")
    beat(again)
    assert claimed(again) is None  # also when it comes back
    workers.drain("a", False)
    beat(again)
    assert claimed(again) == second
    with pytest.raises(UnknownWorkerError, match="there is a"):
        workers.drain("nobody", True)


# --- fairness ----------------------------------------------------------------------------------

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["claims", "looks", "takes"]), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(MOVES)
@example(
    [
        *(("comes", "a"), ("looks", 0), ("claims", 1), ("comes", "a"), ("takes", 0)),
        ("claims", 0),
    ]
)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_turns_are_of_the_fleet_however_its_workers_come_in_between(
    another_place: Callable[[], Place], moves: list[tuple[str, object]]
) -> None:
    """Between two turns of who waits nobody has two, also if workers look at the same time.

    A worker `looks`, others may claim, and it `takes` what it found, or what is next then.
    """
    database = Database(another_place())
    store = Store(database)
    workers = [Leases(database, name, lease_s=30, max_attempts=3) for name in "xyz"]
    looked: dict[int, object] = {}
    waits: dict[str, int] = Counter()
    since: dict[str, Counter[str]] = {}
    for move, who in moves:
        if move == "comes":
            accept(store, str(who))
            waits[str(who)] += 1
            since.setdefault(str(who), Counter())
            continue
        worker = workers[int(str(who))]
        if move == "looks":
            with database.read() as session:
                looked[int(str(who))] = worker._next(session, False, None, ())
            continue
        found = looked.pop(int(str(who)), None) if move == "takes" else None
        if found is None:
            claim = worker.claim(busy=False)
        else:
            with database.write() as session:
                look = lambda: worker._next(session, False, None, ())  # noqa: B023, E731
                claim = worker._claim(session, found, look)  # type: ignore[arg-type]
            worker._in_doubt = None  # the commit has succeeded
        if claim is None:
            assert not sum(waits.values())
            continue
        served = claim.client
        waits[served] -= 1
        for others in since.values():
            others[served] += 1
        del since[served]
        if waits[served]:
            since[served] = Counter()
        assert all(turns <= 1 for others in since.values() for turns in others.values())
    database.close()


# --- what each has -----------------------------------------------------------------------------


def test_what_a_worker_elsewhere_has_is_read_once(
    opened: Database, cpu: Callable[..., Leases], clock: Clock
) -> None:
    here, there = cpu("here"), cpu("there")
    beat(here, folder="f")
    upscaler = {"name": "u", "architecture": "ESRGAN", "scale": 2, "max_pixels": 9}
    text = json.dumps({"models": {}, "upscalers": {"u": upscaler}})
    there.heartbeat(ready=True, device="cuda", max_in_flight=1, about={"folder": "g"}, catalog=text)

    fleet = Fleets(opened, "f", clock, clock.monotonic).read()

    assert fleet.here == ("here",)
    assert list(fleet.there.upscalers) == ["u"]
    assert fleet.having("m", is_here=True) == ("here",)
    assert published.names(text).have("upscalers/u", ())
    clock.now += 31  # neither has sent a heartbeat
    assert not Fleets(opened, "f", clock, clock.monotonic).read().there.upscalers
