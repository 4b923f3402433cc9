"""The queue in numbers, counted from what happened to jobs, whoever did it."""

import pytest
from prometheus_client import CollectorRegistry

from darkroom.ops.metrics import QueueMetrics, merge
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.queue.worker_metrics import Meters
from darkroom.responses import EventType, JobStatus, Problem
from darkroom.storage.database import Database
from darkroom.storage.records import NewEvent
from tests.queue.conftest import ME, Clock, Hire, accept

PROBLEM = Problem(type="urn:darkroom:problem:storage", title="x", status=507, detail="x")


@pytest.fixture
def numbers(opened: Database, clock: Clock) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(QueueMetrics(opened, lambda _limit: (0.1, 0.2, 0.9), clock))
    return registry


def start(worker: Leases, attempt: int = 1) -> str:
    claim = worker.claim(busy=False)
    assert claim is not None
    worker.record([NewEvent(claim.job_id, EventType.STARTED, {"attempt": attempt})], {})
    return claim.job_id


def test_waiting_and_working_are_measured_apart(
    store: Store, worker: Leases, clock: Clock, numbers: CollectorRegistry
) -> None:
    accept(store)
    clock.now += 4
    job = start(worker)
    clock.now += 20
    worker.finish(job, JobStatus.SUCCEEDED)

    value = numbers.get_sample_value
    assert value("darkroom_job_wait_seconds_sum") == 4
    assert value("darkroom_job_duration_seconds_sum", {"task": "txt2img"}) == 20
    assert value("darkroom_jobs_ended_total", {"status": "succeeded", "task": "txt2img"}) == 1


def test_what_was_counted_is_not_counted_again(
    store: Store, worker: Leases, numbers: CollectorRegistry
) -> None:
    for _ in range(2):
        accept(store)
        worker.finish(start(worker), JobStatus.FAILED, PROBLEM)
        failures = numbers.get_sample_value("darkroom_job_failures_total", {"kind": "storage"})

    assert failures == 2


def test_a_job_that_is_begun_again_is_a_retry_and_not_a_second_wait(
    store: Store, worker: Leases, numbers: CollectorRegistry
) -> None:
    accept(store)
    start(worker)
    worker.recover_own()
    start(worker, attempt=2)

    assert numbers.get_sample_value("darkroom_job_retries_total") == 1
    assert numbers.get_sample_value("darkroom_job_wait_seconds_count") == 1


def test_the_oldest_queued_job_tells_how_long_it_has_waited(
    store: Store, clock: Clock, numbers: CollectorRegistry
) -> None:
    first = accept(store)
    clock.now += 30
    accept(store)
    clock.now += 10

    assert numbers.get_sample_value("darkroom_oldest_queued_seconds") == 40
    store.cancel(first, ME)
    assert numbers.get_sample_value("darkroom_oldest_queued_seconds") == 10


def test_the_error_of_estimates_is_the_median(numbers: CollectorRegistry) -> None:
    assert numbers.get_sample_value("darkroom_eta_error_ratio") == 0.2
    assert numbers.get_sample_value("darkroom_eta_errors") == 3


def test_every_workers_numbers_carry_its_name(
    hire: Hire, clock: Clock, numbers: CollectorRegistry
) -> None:
    for name, rows in (("one", 2), ("two", 6)):
        meters = Meters()
        meters.denoised(rows, 0.1)
        hire(name).heartbeat(ready=True, device="cpu", max_in_flight=1, metrics=meters.text())

    value = numbers.get_sample_value
    assert value("darkroom_unet_step_rows_sum", {"worker": "one"}) == 2
    assert value("darkroom_unet_step_rows_sum", {"worker": "two"}) == 6
    clock.now += 31  # their leases have lapsed
    assert value("darkroom_unet_step_rows_sum", {"worker": "one"}) is None


def test_metrics_that_cannot_be_read_do_not_hide_the_others() -> None:
    good = Meters()
    good.lease_lost()

    merged = merge([("broken", "darkroom_{{{ 7"), ("good", good.text())])

    assert any(
        sample.name == "darkroom_leases_lost_total" and sample.value == 1
        for family in merged
        for sample in family.samples
    )
