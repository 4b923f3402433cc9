"""Whatever callers and workers do, in any order: the queue agrees with a model of it in Python.

More of it in `make test-all` and `make soak`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from darkroom.config import QueueSettings
from darkroom.queue.leases import LeaseLostError, Leases
from darkroom.queue.store import Store
from darkroom.queue.transitions import IdempotencyConflictError, QueueFullError
from darkroom.responses import EventType, Job, JobStatus, Problem
from darkroom.storage import totals
from darkroom.storage.database import Database, Place
from darkroom.storage.records import NewEvent
from darkroom.storage.tables import ImageRow
from tests.effort import SOAK, amount
from tests.queue.conftest import Clock, new_job

EXAMPLES = amount(30, 40, 200)
STEPS = amount(40, 50, 60)
CAPS = QueueSettings(max_pending=6, max_pending_per_client=4, max_in_flight_per_client=2)
LEASE_S, MAX_ATTEMPTS = 30.0, 3
PROBLEM = Problem(type="urn:x", title="x", status=500, detail="x")
CLIENTS = st.sampled_from("ab")
URGENCIES = st.sampled_from((1, 3, 6))
PICK = st.integers(0, 9)
WORKERS = st.sampled_from(("one", "two"))
MAY_BECOME = {
    JobStatus.QUEUED: {JobStatus.RUNNING, JobStatus.CANCELLED},
    JobStatus.RUNNING: set(JobStatus) - {JobStatus.RUNNING},
}


@dataclass
class Modelled:
    """A job as it should be."""

    client: str
    number: int
    urgency: int
    key: str | None
    fingerprint: str
    status: JobStatus = JobStatus.QUEUED
    worker: str | None = None
    attempts: int = 0
    isolated: bool = False
    cancelling: bool = False
    images: int = 0
    story: list[EventType] = field(default_factory=lambda: [EventType.QUEUED])

    @property
    def pending(self) -> bool:
        return not self.status.terminal


class QueueMachine(RuleBasedStateMachine):
    """Callers `a` and `b`, workers `one` and `two`, and clocks that go on or are set.

    `make_place` makes an empty database; opened anew, it is the same queue.
    """

    make_place: Callable[[], Place]

    def __init__(self) -> None:
        super().__init__()
        self.place = type(self).make_place()
        self.clock = Clock()
        self.ids = count(1)
        self.model: dict[str, Modelled] = {}
        self.opened = Database(self.place)
        self.hire()

    def hire(self) -> None:
        self.store = Store(self.opened, self.clock, lambda: f"job{next(self.ids)}", CAPS)
        self.workers = {
            name: Leases(
                self.opened,
                name,
                lease_s=LEASE_S,
                max_attempts=MAX_ATTEMPTS,
                max_in_flight_per_client=CAPS.max_in_flight_per_client,
                clock=self.clock,
                monotonic=self.clock.monotonic,
            )
            for name in ("one", "two")
        }
        self.silent_since = dict.fromkeys(self.workers, self.clock.now)

    def teardown(self) -> None:
        self.opened.close()

    # --- callers -----------------------------------------------------------------------------

    @initialize(jobs=st.lists(st.tuples(CLIENTS, URGENCIES), min_size=4, max_size=6))
    def some_wait_and_some_run(self, jobs: list[tuple[str, int]]) -> None:
        for client, urgency in jobs:
            self.submit(client, None, "f", urgency, False)
        self.fill_up("one", 2)

    @rule(
        client=CLIENTS,
        key=st.sampled_from((None, None, "k", "l")),
        fingerprint=st.sampled_from("fg"),
        urgency=URGENCIES,
        collapses=st.sampled_from((False, False, True)),
    )
    def submit(
        self, client: str, key: str | None, fingerprint: str, urgency: int, collapses: bool
    ) -> None:
        new = new_job(client, key, fingerprint, urgency, collapses)
        repeated = [
            id_ for id_, job in self.model.items() if key and (job.client, job.key) == (client, key)
        ]
        same = [
            id_
            for id_, job in self.model.items()
            if collapses
            and (job.client, job.fingerprint) == (client, fingerprint)
            and job.pending
            and not job.cancelling
        ]
        pending = [job.client for job in self.model.values() if job.pending]
        full = len(pending) >= CAPS.max_pending
        full |= pending.count(client) >= CAPS.max_pending_per_client
        try:
            accepted, fresh = self.store.accept(new)
        except IdempotencyConflictError:
            assert self.model[repeated[0]].fingerprint != fingerprint
            return
        except QueueFullError as error:
            assert full
            assert not repeated
            assert not same
            assert error.pending <= CAPS.max_pending  # noqa: PT017
            return
        if repeated or same:
            assert (accepted.id, fresh) == ((repeated or same)[0], False)
        else:
            assert fresh
            assert not full
            self.model[accepted.id] = Modelled(client, len(self.model), urgency, key, fingerprint)

    @rule(pick=PICK, running=st.booleans(), stranger=st.sampled_from((False, False, True)))
    def cancel(self, pick: int, running: bool, stranger: bool) -> None:
        pending = [id_ for id_, job in self.model.items() if job.pending] or [*self.model]
        job_id = self.running(pick)[0] if running else pending[pick % len(pending)]
        job = self.model[job_id]
        found = self.store.cancel(job_id, "somebody else" if stranger else job.client)
        assert (found is None) == stranger
        if stranger:
            return
        if job.status is JobStatus.QUEUED:
            self.end(job, JobStatus.CANCELLED)
        elif job.status is JobStatus.RUNNING:
            job.cancelling = True

    # --- workers -----------------------------------------------------------------------------

    def held(self, worker: str) -> list[Modelled]:
        return [job for job in self.model.values() if job.worker == worker]

    @rule(worker=WORKERS, times=st.integers(1, 3))
    def fill_up(self, worker: str, times: int) -> None:
        for _ in range(times):
            self.claim(worker)

    def claim(self, worker: str) -> None:
        busy = bool(self.held(worker))
        waiting = [job for job in self.model.values() if job.status is JobStatus.QUEUED]
        claim = self.workers[worker].claim(busy=busy)
        if claim is None:
            counts = [job.client for job in self.held(worker)]
            may = [j for j in waiting if counts.count(j.client) < CAPS.max_in_flight_per_client]
            assert not may or (busy and any(job.isolated for job in waiting))
            return
        job = self.model[claim.job_id]
        assert job in waiting
        assert not (busy and job.isolated)
        theirs = [other for other in waiting if other.client == job.client]
        assert job is min(theirs, key=lambda other: (other.urgency, other.number))
        self.become(job, JobStatus.RUNNING)
        job.worker = worker
        job.attempts += 1
        assert (claim.attempt, claim.isolated) == (job.attempts, job.isolated)
        held = [other.client for other in self.held(worker)]
        assert held.count(job.client) <= CAPS.max_in_flight_per_client
        self.silent_since[worker] = self.clock.now

    @rule(worker=WORKERS)
    def beat(self, worker: str) -> None:
        self.workers[worker].heartbeat(ready=True, device="cpu", max_in_flight=3)
        self.silent_since[worker] = self.clock.now

    def running(self, pick: int) -> tuple[str, Modelled]:
        """One of the jobs in flight, or any job if there are none."""
        found = [pair for pair in self.model.items() if pair[1].worker] or [*self.model.items()]
        return found[pick % len(found)]

    @rule(worker=WORKERS, pick=PICK)
    def make_progress(self, worker: str, pick: int) -> None:
        job_id, job = self.running(pick)
        told = NewEvent(job_id, EventType.PROGRESS, {"step": 1, "steps": 6})
        self.workers[worker].record([told], {job_id: (1, 6)})
        if job.worker == worker:
            job.story.append(EventType.PROGRESS)

    @rule(worker=WORKERS, pick=PICK, index=st.integers(0, 1))
    def add_image(self, worker: str, pick: int, index: int) -> None:
        job_id, job = self.running(pick)
        row = ImageRow(
            id=f"{job_id}-{index}",
            job_id=job_id,
            index=index,
            seed=7,
            width=8,
            height=8,
            content_type="image/png",
            bytes=3,
            sha256="0" * 64,
        )
        with self.refused_unless(job.worker == worker):
            self.workers[worker].add_image(row)
            if not job.images >> index & 1:
                job.images |= 1 << index
                job.story.append(EventType.IMAGE)

    @rule(worker=WORKERS, pick=PICK, succeeded=st.booleans())
    def finish(self, worker: str, pick: int, succeeded: bool) -> None:
        job_id, job = self.running(pick)
        status = JobStatus.SUCCEEDED if succeeded else JobStatus.FAILED
        with self.refused_unless(job.worker == worker):
            self.workers[worker].finish(job_id, status, None if succeeded else PROBLEM)
            self.end(job, status)

    @rule(worker=WORKERS)
    def stop_in_order(self, worker: str) -> None:
        held = self.held(worker)
        returned = self.workers[worker].give_back()
        assert returned == sum(not job.cancelling for job in held)
        for job in held:
            job.attempts -= 1
            self.put_back(job)

    @rule(worker=WORKERS)
    def die_and_start_again(self, worker: str) -> None:
        assert self.workers[worker].recover_own() == len(self.held(worker))
        self.interrupted(worker)

    @rule(worker=WORKERS, seconds=st.sampled_from((0.0, 20.0, 31.0)))
    def look_after_the_other(self, worker: str, seconds: float) -> None:
        other = "two" if worker == "one" else "one"
        for passed in (0.0, seconds):
            self.clock.now += passed
            held = len(self.held(other))
            taken = self.workers[worker].recover_lapsed()
            assert taken in (0, held)
            if taken:
                assert self.clock.now - self.silent_since[other] > LEASE_S
                self.interrupted(other)
            else:
                assert not (held and passed > LEASE_S)

    # --- time --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1.0, 20.0, 31.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(seconds=st.sampled_from((-3600.0, 3600.0)))
    def somebody_sets_the_clock(self, seconds: float) -> None:
        self.clock.set_by += seconds

    @rule()
    def everything_is_started_again(self) -> None:
        self.opened.close()
        self.opened = Database(self.place)
        self.hire()
        for name, worker in self.workers.items():
            worker.recover_own()
            self.interrupted(name)

    # --- the model ---------------------------------------------------------------------------

    @contextmanager
    def refused_unless(self, holds: bool) -> Iterator[None]:
        """A worker that does not hold the job can change nothing of it."""
        try:
            yield
        except LeaseLostError:
            assert not holds
        else:
            assert holds

    def become(self, job: Modelled, status: JobStatus) -> None:
        assert status in MAY_BECOME[job.status]
        job.status = status
        job.worker = None

    def end(self, job: Modelled, status: JobStatus) -> None:
        self.become(job, status)
        job.cancelling = False
        job.story.append(EventType(status.value))

    def put_back(self, job: Modelled) -> None:
        if job.cancelling:
            self.end(job, JobStatus.CANCELLED)
        else:
            self.become(job, JobStatus.QUEUED)
            job.story.append(EventType.QUEUED)

    def interrupted(self, worker: str) -> None:
        """The worker is dead. Only a job that was alone is to blame."""
        held = self.held(worker)
        for job in held:
            job.isolated = True
            job.attempts -= len(held) > 1
            if job.attempts >= MAX_ATTEMPTS and not job.cancelling:
                self.end(job, JobStatus.FAILED)
            else:
                self.put_back(job)

    @invariant()
    def every_job_is_as_modelled(self) -> None:
        for client in "ab":
            theirs = {id_: job for id_, job in self.model.items() if job.client == client}
            found = self.page(client)
            assert found.keys() == theirs.keys()  # nobody else's among them
            for id_, job in theirs.items():
                seen = found[id_]
                assert (seen.status, seen.attempts) == (job.status, job.attempts)
                assert [image.index for image in seen.images] == [
                    index for index in (0, 1) if job.images >> index & 1
                ]

    @invariant()
    def totals_are_what_counting_finds(self) -> None:
        with self.opened.read() as session:
            found = totals.read(session)
        statuses = Counter(job.status.value for job in self.model.values())
        assert Counter(dict(found.jobs)) == statuses  # missing ones and noughts are equal
        assert Counter(dict(found.jobs_of)) == Counter(job.client for job in self.model.values())
        assert found.pictures == sum(job.images.bit_count() for job in self.model.values())

    @invariant()
    def every_story_is_told_once(self) -> None:
        stories: dict[str, list[EventType]] = {id_: [] for id_ in self.model}
        for event in self.store.events_after(0, limit=10_000):
            stories[event.job_id].append(event.type)
        assert stories == {id_: job.story for id_, job in self.model.items()}
        for story in stories.values():
            assert story[0] is EventType.QUEUED
            assert [kind for kind in story[:-1] if kind.terminal] == []

    @invariant()
    def positions_count_from_nought(self) -> None:
        shown = [job.position for job in self.page(None).values()]
        queued = [job for job in self.model.values() if job.status is JobStatus.QUEUED]
        positions = [position for position in shown if position is not None]
        assert sorted(positions) == list(range(len(queued)))

    @invariant()
    def caps_hold(self) -> None:
        pending = [job.client for job in self.model.values() if job.pending]
        assert len(pending) <= CAPS.max_pending
        assert all(pending.count(client) <= CAPS.max_pending_per_client for client in "ab")

    def page(self, client: str | None) -> dict[str, Job]:
        jobs, cursor = self.store.jobs(client, before=None, limit=10_000, status=None)
        assert cursor is None
        return {job.id: job for job in jobs}


@pytest.mark.parametrize(
    ("another_place", "examples"),
    [
        ("sqlite", 3),
        pytest.param("sqlite", EXAMPLES, marks=pytest.mark.slow),
        pytest.param("postgresql", 5 if not SOAK else EXAMPLES, marks=pytest.mark.slow),
    ],
    indirect=["another_place"],
)
def test_the_queue_does_what_its_model_does(
    another_place: Callable[[], Place], examples: int
) -> None:
    machine = type("Machine", (QueueMachine,), {"make_place": staticmethod(another_place)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not SOAK,
            suppress_health_check=list(HealthCheck),
        ),
    )
