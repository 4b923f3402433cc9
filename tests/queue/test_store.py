"""The queue in SQL, on a real database, with a clock and ids of the test's own."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from darkroom.errors import message
from darkroom.queue.estimate import Kind, Speed
from darkroom.queue.leases import LeaseLostError, Leases
from darkroom.queue.store import PictureInUseError, Store
from darkroom.queue.transitions import IdempotencyConflictError, SourceGoneError
from darkroom.requests import Task
from darkroom.responses import EventType, JobStatus, Problem
from darkroom.storage import database
from darkroom.storage.database import Database, Place
from darkroom.storage.records import NewEvent, preview_data
from darkroom.storage.tables import ImageRow, JobRow
from tests.queue.conftest import ME, Clock, Hire, accept, new_job, upload_of

KIND = Kind("tintype", 128 * 128, 1)
PROBLEM = Problem(type="urn:x", title="x", status=500, detail="x")


def kinds(store: Store, job_id: str) -> list[str]:
    return [event.type.value for event in store.events_after(0, job_id)]


def status(store: Store, job_id: str) -> JobStatus:
    job = store.job(job_id, ME)
    assert job is not None
    return job.status


def image(job_id: str, index: int = 0) -> ImageRow:
    return ImageRow(
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


def test_migrating_twice_changes_nothing(store: Store, place: Place) -> None:
    job = accept(store)
    database.migrate(place)

    assert status(store, job) is JobStatus.QUEUED


def test_an_accepted_job_outlives_the_process(place: Place, store: Store) -> None:
    job = accept(store)
    another = Database(place)

    assert status(Store(another), job) is JobStatus.QUEUED
    another.close()


def test_jobs_are_claimed_oldest_first_and_once(store: Store, worker: Leases) -> None:
    first, second = accept(store), accept(store)

    claims = [worker.claim(busy=False) for _ in range(3)]

    assert [claim and claim.job_id for claim in claims] == [first, second, None]


def test_a_clients_jobs_are_its_own(store: Store) -> None:
    job = accept(store, client="somebody else")

    assert store.job(job, ME) is None
    assert store.cancel(job, ME) is None
    assert store.jobs(ME, before=None, limit=10, status=None) == ([], None)


def test_a_repeated_key_finds_the_first_job(store: Store) -> None:
    first = accept(store, key="k")

    assert accept(store, key="k") == first
    assert accept(store, client="another", key="k") != first
    with pytest.raises(IdempotencyConflictError):
        accept(store, key="k", fingerprint="different")


@pytest.mark.parametrize("running", [False, True])
def test_a_job_cancelled_by_its_own_caller_frees_its_key(
    store: Store, worker: Leases, running: bool
) -> None:
    first = accept(store, key="k")
    if running:
        assert worker.claim(busy=False)

    store.cancel(first, ME, frees_key=True)

    again, fresh = store.accept(new_job(key="k"))
    assert fresh
    assert again.id != first


def test_a_job_cancelled_by_someone_else_and_one_that_has_ended_keep_their_keys(
    store: Store, worker: Leases
) -> None:
    cancelled, done = accept(store, key="k"), accept(store, key="l")
    store.cancel(cancelled, ME)
    assert worker.claim(busy=False)
    worker.finish(done, JobStatus.SUCCEEDED)
    store.cancel(done, ME, frees_key=True)

    assert [store.accept(new_job(key=key))[0].id for key in "kl"] == [cancelled, done]


def test_a_job_whose_source_was_deleted_meanwhile_is_not_accepted(store: Store) -> None:
    from_upload = {"task": Task.IMG2IMG, "image": "image:up1"}
    store.cancel(accept(store, uploads=(upload_of("up1"),), **from_upload), ME)
    assert store.delete_picture("up1", ME)

    with pytest.raises(SourceGoneError, match="up1"):
        accept(store, **from_upload)
    assert len(store.jobs(ME, before=None, limit=9, status=None)[0]) == 1


def test_a_source_of_an_unfinished_job_is_not_deleted(store: Store) -> None:
    from_upload = {"task": Task.INPAINT, "image": "image:up1", "mask_image": "image:up2"}
    job_id = accept(store, uploads=(upload_of("up1"), upload_of("up2")), **from_upload)

    for name in ("up1", "up2"):
        with pytest.raises(PictureInUseError):
            store.delete_picture(name, ME)

    store.cancel(job_id, ME)
    assert store.delete_picture("up2", ME)


def test_a_heartbeat_keeps_the_lease(
    store: Store, clock: Clock, worker: Leases, hire: Hire
) -> None:
    other = hire("other")
    job = accept(store)
    worker.claim(busy=False)
    assert other.recover_lapsed() == 0
    clock.now += 20
    worker.heartbeat(ready=True, device="cpu", max_in_flight=1)
    clock.now += 20

    assert other.recover_lapsed() == 0
    assert status(store, job) is JobStatus.RUNNING


def test_a_lapsed_lease_puts_the_job_back(
    store: Store, clock: Clock, worker: Leases, hire: Hire
) -> None:
    other = hire("other")
    job = accept(store)
    worker.claim(busy=False)
    assert other.recover_lapsed() == 0
    clock.now += 31

    assert other.recover_lapsed() == 1
    assert status(store, job) is JobStatus.QUEUED
    again = other.claim(busy=False)
    assert again is not None
    assert again.attempt == 2
    assert kinds(store, job) == ["queued", "queued"]


def test_a_job_interrupted_too_often_fails_with_the_reason(store: Store, worker: Leases) -> None:
    job = accept(store)
    for _ in range(3):
        worker.claim(busy=False)
        worker.recover_own()

    found = store.job(job, ME)
    assert found is not None
    assert found.status is JobStatus.FAILED
    assert found.error is not None
    assert found.error.type == "urn:darkroom:problem:interrupted"
    assert kinds(store, job)[-1] == "failed"


def test_an_interrupted_job_runs_without_neighbours(store: Store, worker: Leases) -> None:
    accept(store)
    worker.claim(busy=False)
    worker.recover_own()
    accept(store)

    assert worker.claim(busy=True) is None
    assert worker.claim(busy=False) is not None


def test_a_worker_that_lost_its_lease_changes_nothing(
    store: Store, clock: Clock, hire: Hire
) -> None:
    slow, quick = hire("slow"), hire("quick")
    job = accept(store)
    slow.claim(busy=False)
    quick.recover_lapsed()
    clock.now += 31
    quick.recover_lapsed()
    quick.claim(busy=False)

    slow.record([NewEvent(job, EventType.PROGRESS, {"step": 9})], {job: (9, 9)})
    with pytest.raises(LeaseLostError):
        slow.add_note(job, "lost")
    with pytest.raises(LeaseLostError):
        slow.add_image(image(job))
    with pytest.raises(LeaseLostError):
        slow.finish(job, JobStatus.SUCCEEDED)

    assert status(store, job) is JobStatus.RUNNING
    assert "progress" not in kinds(store, job)


def test_a_note_is_kept_once(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    for text in ("the VAE was tiled", "größer ging nicht", "the VAE was tiled"):
        worker.add_note(job, text)

    found = store.job(job, ME)
    assert found is not None
    assert found.notes == ("the VAE was tiled", "größer ging nicht")
    assert kinds(store, job) == ["queued", "note", "note"]


def test_a_second_run_says_nothing_twice(store: Store, worker: Leases) -> None:
    job = accept(store)
    for _ in range(2):
        worker.claim(busy=False)
        worker.add_note(job, "the VAE was tiled")
        worker.recover_own()

    assert kinds(store, job) == ["queued", "note", "queued", "queued"]


def test_a_note_keeps_its_code_beside_those_of_older_servers(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    with store.database.write() as session:
        session.execute(update(JobRow).values(notes='["of an older server"]'))

    worker.add_note(job, message("memory_tiles", "tiles of {side} pixels", side=512))
    worker.add_note(job, "tiles of 512 pixels")

    found = store.job(job, ME)
    assert found is not None
    assert found.notes == ("of an older server", "tiles of 512 pixels")
    assert [(note.code, note.values) for note in found.coded_notes] == [
        (None, {}),
        ("memory_tiles", {"side": 512}),
    ]
    told = [event.data for event in store.events_after(0, job) if event.type == "note"]
    assert told == [
        {"note": "tiles of 512 pixels", "code": "memory_tiles", "values": {"side": 512}}
    ]


def preview(job_id: str, webp: bytes, index: int = 0) -> NewEvent:
    return NewEvent(job_id, EventType.PREVIEW, preview_data(webp, index))


def test_previews_are_those_of_the_last_run(store: Store, worker: Leases) -> None:
    job = accept(store)
    for run in (b"first", b"second"):
        worker.claim(busy=False)
        worker.record([preview(job, run + b" a"), preview(job, run + b" b")], {})
        if run == b"first":
            worker.recover_own()

    assert [found.webp for found in store.previews(job, 10)] == [b"second a", b"second b"]


def test_each_picture_has_its_own_previews(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    worker.record([preview(job, b"one"), preview(job, b"two", 1), preview(job, b"1", 0)], {})

    assert [found.webp for found in store.previews(job, 10)] == [b"one", b"1"]
    assert [found.webp for found in store.previews(job, 10, 1)] == [b"two"]
    assert store.previews(job, 10, 2) == []
    newest = store.last_preview(job)
    assert newest is not None
    assert newest.webp == b"1"


def test_previews_of_older_servers_are_of_the_first_picture(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    old = {"image": preview_data(b"old")["image"]}
    worker.record([NewEvent(job, EventType.PREVIEW, old)], {})

    assert [found.webp for found in store.previews(job, 10)] == [b"old"]
    assert store.previews(job, 10, 1) == []


def test_many_previews_are_thinned_evenly(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    worker.record([preview(job, bytes([number])) for number in range(101)], {})

    assert [found.webp[0] for found in store.previews(job, 5)] == [0, 25, 50, 75, 100]


def test_a_job_reaches_one_end(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    worker.finish(job, JobStatus.FAILED, PROBLEM)

    with pytest.raises(LeaseLostError):
        worker.finish(job, JobStatus.SUCCEEDED)
    store.cancel(job, ME)

    assert status(store, job) is JobStatus.FAILED
    assert kinds(store, job) == ["queued", "failed"]


def test_a_second_run_adds_no_second_picture(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    worker.add_image(image(job))
    worker.recover_own()
    worker.claim(busy=False)
    worker.add_image(image(job))

    found = store.job(job, ME)
    assert found is not None
    assert [stored.id for stored in found.images] == [f"{job}-0"]
    assert kinds(store, job).count("image") == 1


def test_a_cancelled_job_whose_worker_died_is_not_run_again(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)
    store.cancel(job, ME)
    assert worker.cancel_requests() == [job]

    worker.recover_own()

    assert status(store, job) is JobStatus.CANCELLED


def test_a_stopping_worker_hands_its_jobs_back_uncounted(store: Store, worker: Leases) -> None:
    job = accept(store)
    worker.claim(busy=False)

    assert worker.give_back() == 1
    again = worker.claim(busy=False)
    assert again is not None
    assert (again.job_id, again.attempt) == (job, 1)


def estimate(store: Store, *jobs: str) -> list[tuple[int | None, float | None]]:
    """Position and ETA of each job."""
    found = {job.id: job for job in store.jobs(ME, before=None, limit=100, status=None)[0]}
    return [(found[job].position, found[job].eta_seconds) for job in jobs]


def test_the_eta_of_a_queued_job_counts_those_before_it(store: Store, worker: Leases) -> None:
    worker.learn_speed(KIND, Speed(step_seconds=0.5, other_seconds=1.0))
    jobs = accept(store), accept(store)

    assert estimate(store, *jobs) == [(0, 4.0), (1, 8.0)]  # six steps and the rest, then twice that


def test_the_eta_knows_that_jobs_run_together(store: Store, worker: Leases) -> None:
    worker.heartbeat(ready=True, device="cpu", max_in_flight=2)
    worker.learn_speed(KIND, Speed(step_seconds=0.5, other_seconds=1.0))
    running, next_one, last = accept(store), accept(store), accept(store)
    worker.claim(busy=False)
    worker.record([], {running: (3, 6)})

    assert estimate(store, running, next_one, last) == [(None, 5.0), (0, 8.0), (1, 10.5)]


def test_speeds_are_kept_apart_by_company(store: Store, worker: Leases) -> None:
    worker.learn_speed(KIND, Speed(step_seconds=0.5, other_seconds=1.0))
    worker.learn_speed(replace(KIND, in_flight=4), Speed(step_seconds=0.1, other_seconds=0.0))

    assert estimate(store, accept(store, num_images=4)) == [(0, 2.4)]


def test_the_answer_to_a_new_job_is_what_is_shown_of_it(store: Store, worker: Leases) -> None:
    worker.learn_speed(KIND, Speed(step_seconds=0.5, other_seconds=1.0))
    for steps in (2, 50):
        accept(store, num_inference_steps=steps)
    worker.claim(busy=False)

    job, _ = store.accept(new_job())

    assert job.eta_seconds
    assert store.job(job.id, ME) == job


@pytest.mark.parametrize("lease_s", [2, 30, 600])
def test_a_worker_is_there_as_long_as_its_lease(
    store: Store, opened: Database, clock: Clock, lease_s: float
) -> None:
    worker = Leases(opened, "w", lease_s=lease_s, max_attempts=3, clock=clock)
    worker.heartbeat(ready=True, device="cpu", max_in_flight=1)

    clock.now += lease_s - 1
    assert store.workers() == [("w", True, "cpu")]

    clock.now += 2
    assert store.workers() == []
