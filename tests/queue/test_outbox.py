"""Letters about jobs' ends: taken by one process at a time, and never forgotten."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.config import RetentionSettings
from darkroom.destinations import parse
from darkroom.queue.leases import Leases
from darkroom.queue.retention import DAY_S, Retention
from darkroom.queue.store import Store
from darkroom.responses import JobStatus, WebhookState
from darkroom.storage.database import Database
from darkroom.storage.files import FolderFiles
from darkroom.webhooks.deliveries import LONGEST_WAIT_S, Outbox
from tests.queue.conftest import ME, Clock, new_job

LEASE_S = 30.0

Open = Callable[[str], Outbox]


@pytest.fixture
def open_as(opened: Database, clock: Clock) -> Open:
    """The outbox, as a process of that name has it."""
    return lambda name: Outbox(opened, name, LEASE_S, clock, clock.monotonic)


@pytest.fixture
def outbox(open_as: Open) -> Outbox:
    return open_as("web")


def asked(store: Store, url: str = "http://a.example/told") -> str:
    """A job somebody is to be told of; its id."""
    return store.accept(new_job(webhook=parse(url)))[0].id


def ended(store: Store, url: str = "http://a.example/told") -> str:
    """The same, that has ended."""
    job_id = asked(store, url)
    store.cancel(job_id, ME)
    return job_id


def state(store: Store, job_id: str) -> WebhookState:
    job = store.job(job_id, ME)
    assert job is not None
    assert job.webhook is not None
    return job.webhook.state


def test_nothing_is_told_before_the_end(store: Store, outbox: Outbox, worker: Leases) -> None:
    job_id = asked(store)
    assert outbox.claim(2, {}) == []
    assert worker.claim(busy=False)
    assert outbox.claim(2, {}) == []
    worker.finish(job_id, JobStatus.SUCCEEDED)

    (delivery,) = outbox.claim(2, {})

    assert (delivery.job.id, delivery.job.status) == (job_id, JobStatus.SUCCEEDED)
    assert (delivery.url, delivery.origin) == ("http://a.example/told", "http://a.example:80")


def test_a_job_that_dies_with_its_workers_is_told_of(
    store: Store, outbox: Outbox, worker: Leases
) -> None:
    asked(store)
    for _ in range(3):
        assert worker.claim(busy=False)
        worker.recover_own()

    (delivery,) = outbox.claim(2, {})

    assert delivery.job.status is JobStatus.FAILED


def test_a_job_that_nobody_is_told_of_leaves_no_letter(store: Store, outbox: Outbox) -> None:
    accepted, _ = store.accept(new_job())
    job = store.cancel(accepted.id, ME)

    assert job is not None
    assert job.webhook is None
    assert outbox.claim(2, {}) == []


def test_one_origin_leaves_room_for_the_others(store: Store, outbox: Outbox) -> None:
    for _ in range(5):
        ended(store, "http://slow.example/told")
    other = ended(store, "http://quick.example/told")

    first = outbox.claim(2, {})
    assert sorted(delivery.origin for delivery in first) == [
        "http://quick.example:80",
        *["http://slow.example:80"] * 2,
    ]
    assert other in [delivery.job.id for delivery in first]
    assert outbox.claim(2, {"http://slow.example:80": 2}) == []
    assert len(outbox.claim(2, {"http://slow.example:80": 1})) == 1


def test_the_longest_due_goes_first(store: Store, outbox: Outbox, clock: Clock) -> None:
    late = ended(store)
    (delivery,) = outbox.claim(1, {})
    outbox.postpone(delivery, 10, "answered 503")
    clock.now += 5
    early = ended(store)
    clock.now += 6

    assert [found.job.id for found in outbox.claim(2, {})] == [early, late]


def test_what_is_postponed_waits_its_time(store: Store, outbox: Outbox, clock: Clock) -> None:
    ended(store)
    (delivery,) = outbox.claim(2, {})
    outbox.postpone(delivery, 10, "answered 503")

    clock.now += 9.9
    assert outbox.claim(2, {}) == []
    clock.now += 0.1
    (again,) = outbox.claim(2, {})
    assert again.attempt == 2


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_is_set_leaves_no_letter_behind(
    store: Store, outbox: Outbox, clock: Clock, hours: int
) -> None:
    ended(store)
    (delivery,) = outbox.claim(2, {})
    outbox.postpone(delivery, LONGEST_WAIT_S, "answered 503")
    clock.set_by = hours * 3600

    assert len(outbox.claim(2, {})) == 1


def test_two_processes_do_not_take_the_same_letter(store: Store, open_as: Open) -> None:
    ended(store)

    assert len(open_as("one").claim(2, {})) == 1
    assert open_as("other").claim(2, {}) == []


def test_the_letters_of_a_dead_process_are_sent_by_the_next(
    store: Store, open_as: Open, clock: Clock
) -> None:
    job_id = ended(store)
    dead, alive = open_as("dead"), open_as("alive")
    (lost,) = dead.claim(2, {})

    clock.set_by = 3600  # which is not the time that passes
    assert alive.recover_lapsed() == 0
    clock.now += LEASE_S - 1
    assert alive.recover_lapsed() == 0
    assert alive.claim(2, {}) == []
    clock.now += 2
    assert alive.recover_lapsed() == 1
    (delivery,) = alive.claim(2, {})

    assert delivery.attempt == 2
    dead.give_up(lost, "it was only frozen")  # and has nothing to say any more
    assert state(store, job_id) is WebhookState.PENDING
    alive.delivered(delivery)
    assert state(store, job_id) is WebhookState.DELIVERED


def test_a_process_does_not_take_its_own_letters_for_lost(
    store: Store, outbox: Outbox, clock: Clock
) -> None:
    ended(store)
    outbox.claim(2, {})
    for _ in range(3):
        clock.now += LEASE_S
        assert outbox.recover_lapsed() == 0


def test_a_claim_that_nobody_heard_of_is_made_again(store: Store, outbox: Outbox) -> None:
    """It was committed, and the connection broke before the database said so."""
    job = ended(store)
    outbox.claim(2, {})

    assert outbox.recover_unknown([job]) == 0
    assert outbox.claim(2, {}) == []
    assert outbox.recover_unknown([]) == 1
    (delivery,) = outbox.claim(2, {})
    assert delivery.job.id == job


def test_an_attempt_that_was_broken_off_is_none(store: Store, outbox: Outbox) -> None:
    ended(store)
    outbox.put_back(outbox.claim(2, {}))

    (delivery,) = outbox.claim(2, {})
    assert delivery.attempt == 1


def test_a_letter_goes_with_its_job(
    store: Store, opened: Database, outbox: Outbox, clock: Clock, tmp_path: Path
) -> None:
    ended(store)
    (delivery,) = outbox.claim(2, {})
    outbox.postpone(delivery, 10, "answered 503")
    clock.now += 2 * DAY_S
    settings = RetentionSettings(max_age_days=1)
    Retention(
        opened, FolderFiles(tmp_path / "i"), FolderFiles(tmp_path / "o"), settings, clock
    ).sweep()

    assert outbox.claim(2, {}) == []
    outbox.delivered(delivery)  # and whoever is at it just then does no harm
