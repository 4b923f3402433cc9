"""Turns: who queues much does not keep the others waiting."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from darkroom.queue.doorbell import LocalDoorbells
from darkroom.queue.fairness import ClientQueue, in_turn, joining, order
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.responses import EventType
from darkroom.storage.database import Database, Place
from darkroom.storage.tables import ClientRow
from tests.queue.conftest import accept
from tests.serving import RunningServer, running

CLIENTS = st.sampled_from("abcd")
QUEUES = st.text("abcd", max_size=30)  # the client of each queued job, the oldest first
TICKETS = st.dictionaries(CLIENTS, st.integers(0, 9))


def waiting(clients: Iterable[str]) -> dict[str, ClientQueue]:
    """Queued jobs, given by the client of each, the oldest first."""
    found: dict[str, ClientQueue] = {}
    for sequence, client in enumerate(clients):
        known = found.get(client, ClientQueue(0, sequence))
        found[client] = replace(known, jobs=known.jobs + 1)
    return found


def turns(
    clients: Iterable[str],
    tickets: dict[str, int] | None = None,
    in_flight: str = "",
    *,
    places: int = 100,
    per_client: int = 100,
) -> list[str]:
    return list(
        order(
            waiting(clients), tickets or {}, list(in_flight), places=places, per_client=per_client
        )
    )


@given(QUEUES, TICKETS, st.text("abcd", max_size=6), st.integers(1, 6), st.integers(1, 6))
def test_every_job_has_its_turn(
    queue: str, tickets: dict[str, int], in_flight: str, places: int, per_client: int
) -> None:
    ordered = turns(queue, tickets, in_flight, places=places, per_client=per_client)

    assert Counter(ordered) == Counter(queue)


@given(QUEUES, TICKETS)
def test_nobody_has_a_second_turn_before_everybody_had_a_first(
    queue: str, tickets: dict[str, int]
) -> None:
    left = Counter(queue)
    had: Counter[str] = Counter()
    for client in turns(queue, tickets):
        had[client] += 1
        left[client] -= 1
        assert all(had[client] <= had[other] + 1 for other in left if left[other])


@given(st.lists(st.one_of(st.none(), CLIENTS), max_size=60))
def test_between_two_turns_of_who_waits_nobody_has_more_than_one(moves: list[str | None]) -> None:
    """However clients come and go: a move is a client that comes with a job, or a claim."""
    queue: list[str] = []
    tickets: dict[str, int] = {}
    since: dict[str, Counter[str]] = {}  # others' turns since the last one of a client that waits
    for client in moves:
        latest = max(tickets.values(), default=0)
        if client is not None:
            if client not in since:
                tickets[client] = joining(tickets.get(client), latest)
                since[client] = Counter()
            queue.append(client)
            continue
        served = next(iter(in_turn(waiting(queue), tickets, (), per_client=1)), None)
        if served is None:
            continue
        queue.remove(served)
        tickets[served] = latest + 1
        for others in since.values():
            others[served] += 1
        del since[served]
        if served in queue:
            since[served] = Counter()
        assert all(turns <= 1 for others in since.values() for turns in others.values())


def test_a_newcomer_goes_before_who_was_served_last_and_behind_who_waited() -> None:
    tickets = {"patient": 3, "served": 9}
    tickets["new"] = joining(None, 9)

    assert turns(("served", "patient", "new"), tickets) == ["patient", "new", "served"]


def test_staying_away_gives_no_credit() -> None:
    assert joining(3, 100) == joining(None, 100) == 99
    assert joining(100, 100) == 100


def test_who_has_as_many_in_flight_as_allowed_is_passed_over() -> None:
    found = turns("aab", {"a": 1, "b": 2}, "aa", places=4, per_client=2)

    assert found == ["b", "a", "a"]


# --- in the store --------------------------------------------------------------------------


def claimed(worker: Leases) -> Iterator[str]:
    while claim := worker.claim(busy=False):
        yield claim.job_id


def test_clients_take_turns(store: Store, worker: Leases) -> None:
    a = [accept(store, client="a") for _ in range(3)]
    b = [accept(store, client="b") for _ in range(2)]

    assert list(claimed(worker)) == [a[0], b[0], a[1], b[1], a[2]]


def test_the_positions_are_the_order_of_the_claims(store: Store, worker: Leases) -> None:
    asked = ("a", 3), ("a", 1), ("a", 7), ("b", 3), ("c", 3), ("a", 1), ("b", 7)
    jobs = [accept(store, client=client, urgency=urgency) for client, urgency in asked]
    accept(store, client="a")
    worker.claim(busy=False)
    found = [job for job in (store.job(id_, None) for id_ in jobs) if job is not None]
    shown = {job.position: job.id for job in found if job.position is not None}

    order = list(claimed(worker))

    assert [shown[position] for position in sorted(shown)] == [id_ for id_ in order if id_ in jobs]
    assert sorted(shown) == [n for n, id_ in enumerate(order) if id_ in jobs]


def test_the_queued_event_tells_the_position(store: Store, worker: Leases) -> None:
    for _ in range(5):
        accept(store, client="a")
    worker.claim(busy=False)

    late = accept(store, client="b")

    (queued,) = store.events_after(0, late)
    assert (queued.type, queued.data["position"]) == (EventType.QUEUED, 0)


@pytest.mark.slow
@given(asked=st.lists(st.tuples(CLIENTS, st.integers(0, 7)), max_size=12), busy=st.integers(0, 3))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_clients_jobs_are_claimed_by_urgency_then_age_at_their_positions(
    another_place: Callable[[], Place], asked: list[tuple[str, int]], busy: int
) -> None:
    copy = Database(another_place())  # for each example
    store = Store(copy)
    worker = Leases(copy, "w", lease_s=30, max_attempts=3, max_in_flight_per_client=100)
    worker.heartbeat(ready=True, device="cpu", max_in_flight=100)
    urgency = {accept(store, client=c, urgency=u): (c, u) for c, u in asked}
    for _ in range(busy):
        worker.claim(busy=True)
    jobs = [store.job(job, None) for job in urgency]
    shown = {job.position: job.id for job in jobs if job and job.position is not None}

    order = list(claimed(worker))

    assert [shown[position] for position in range(len(shown))] == order
    age = list(urgency)
    for client in "abcd":
        theirs = [(urgency[job][1], age.index(job)) for job in order if urgency[job][0] == client]
        assert theirs == sorted(theirs)
    copy.close()


def test_urgency_orders_ones_own_jobs_only(store: Store, worker: Leases) -> None:
    slow, usual = accept(store, client="a", urgency=7), accept(store, client="a")
    other = accept(store, client="b", urgency=7)
    urgent = accept(store, client="a", urgency=0)

    assert list(claimed(worker)) == [urgent, other, usual, slow]


def test_the_cap_of_one_client_does_not_hold_up_another(opened: Database, store: Store) -> None:
    worker = Leases(opened, "w", lease_s=30, max_attempts=3, max_in_flight_per_client=2)
    a = [accept(store, client="a") for _ in range(4)]
    b = accept(store, client="b")

    assert list(claimed(worker)) == [a[0], b, a[1]]


def test_the_cap_is_each_workers(opened: Database, store: Store) -> None:
    for _ in range(3):
        accept(store, client="a")
    one, two = (
        Leases(opened, name, lease_s=30, max_attempts=3, max_in_flight_per_client=1)
        for name in ("one", "two")
    )

    assert [len(list(claimed(one))), len(list(claimed(two)))] == [1, 1]


def test_clients_long_gone_are_forgotten(opened: Database, store: Store) -> None:
    with opened.write() as session:
        session.add_all(ClientRow(client=f"visitor {n}", served=n) for n in range(200))

    accept(store, client="a")

    with opened.read() as session:
        kept = set(session.scalars(select(ClientRow.client)))
    assert kept == {"a", "visitor 198", "visitor 199"}


# --- with the real worker ------------------------------------------------------------------


@contextmanager
def queue_of(server: RunningServer) -> Iterator[Store]:
    """Submits in the names of several clients, who are all one over HTTP from one machine."""
    opened = Database(server.data_dir / "darkroom.db")
    yield Store(opened)
    opened.close()


def ended_before_b_began(server: RunningServer, steps: int) -> int:
    """A queues twenty jobs, then B one like them; how many of A's ended while B's waited."""
    with queue_of(server) as store:
        bells = LocalDoorbells(server.data_dir)
        a = {accept(store, client="a", num_inference_steps=steps) for _ in range(20)}
        bells.ring("worker")
        oldest = min(a, key=lambda job: store.events_after(0, job)[0].id)
        next(event for event in server.events(oldest) if event["event"] == "progress")
        b = accept(store, client="b", num_inference_steps=steps)
        bells.ring("worker")
        server.finished(b)
        for job in a:
            store.cancel(job, None)
        story = {event.type: event.id for event in store.events_after(0, b)}
        meanwhile = range(story[EventType.QUEUED], story[EventType.STARTED])
        events = store.events_after(story[EventType.QUEUED], limit=100_000)
        return sum(
            event.id in meanwhile and event.job_id in a
            for event in events
            if event.type is EventType.SUCCEEDED
        )


@pytest.mark.slow
def test_a_queues_twenty_and_b_waits_for_two_at_most(server: RunningServer) -> None:
    assert ended_before_b_began(server, steps=40) <= 2


@pytest.mark.slow
def test_the_same_when_one_runs_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, DARKROOM_ENGINE__MAX_JOBS_IN_FLIGHT="1") as server:
        assert ended_before_b_began(server, steps=10) <= 2
