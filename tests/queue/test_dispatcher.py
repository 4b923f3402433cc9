"""What an engine says becomes what the queue knows."""

from itertools import count
from typing import Any

import pytest

from darkroom.engine.base import (
    Failed,
    Finished,
    ImageReady,
    JobWarning,
    Previewed,
    Started,
    Stepped,
)
from darkroom.errors import message
from darkroom.queue.leases import Leases
from darkroom.queue.presence import Workers
from darkroom.queue.store import Store
from darkroom.queue.worker import Dispatcher
from darkroom.responses import Job, JobStatus
from tests.queue.conftest import ME, Play, accept
from tests.queue.scripted import PICTURE
from tests.waiting import eventually

NOTE = "memory was short: images were developed one at a time"


def ended(store: Store, job_id: str) -> Job:
    job = store.job(job_id, ME)
    assert job is not None
    assert job.status.terminal
    return job


@pytest.mark.parametrize(
    ("kind", "status", "title"),
    [
        ("request", 422, "The request cannot be done"),
        ("out-of-memory", 507, "Not enough memory"),
        ("model", 500, "The model cannot be loaded"),
        ("engine", 500, "The picture could not be developed"),
    ],
)
def test_every_way_to_break_has_its_status(
    store: Store, play: Play, kind: str, status: int, title: str
) -> None:
    job_id = accept(store)

    play([Started(job_id, 6)], [Failed(job_id, kind, "lcm was distilled for at most 50 steps")])

    job = ended(store, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.type, job.error.status, job.error.title) == (
        f"urn:darkroom:problem:{kind}",
        status,
        title,
    )
    assert job.error.detail == "lcm was distilled for at most 50 steps"


def test_why_a_job_failed_can_be_translated(store: Store, play: Play) -> None:
    job_id = accept(store)
    why = message("not_finite", "the {network} in /srv/models/x gave NaN", network="VAE")

    play([Started(job_id, 6)], [Failed(job_id, "model", why)])

    error = ended(store, job_id).error
    assert error is not None
    assert (error.detail, error.code) == ("the VAE in x gave NaN", "not_finite")
    assert error.values == {"network": "VAE"}
    *_, end = store.events_after(0, job_id)
    assert end.data["problem"]["code"] == "not_finite"


def test_no_caller_learns_where_the_servers_files_are(store: Store, play: Play) -> None:
    noted, failed = accept(store), accept(store)

    play(
        [JobWarning(noted, "'/srv/my models/a.json' was ignored"), Started(noted, 1)],
        [Failed(failed, "model", "no file named model.safetensors in /srv/models/sd/unet.")],
        [Finished(noted)],
    )

    error = ended(store, failed).error
    assert error is not None
    assert error.detail == "no file named model.safetensors in unet."
    assert ended(store, noted).notes == ("a.json was ignored",)


def test_a_note_may_come_before_the_start(store: Store, play: Play) -> None:
    job_id = accept(store)

    play([JobWarning(job_id, NOTE)], [Started(job_id, 1)], [Finished(job_id)])

    events = [event.type.value for event in store.events_after(0, job_id)]
    assert events == ["queued", "note", "started", "succeeded"]


def test_a_note_stands_where_it_was_said(store: Store, play: Play) -> None:
    job_id = accept(store)

    play(
        [Started(job_id, 1)],
        [Stepped(job_id, 1, 1), JobWarning(job_id, NOTE), Previewed(job_id, b"webp")],
        [JobWarning(job_id, NOTE), ImageReady(job_id, 0, 7, PICTURE), Finished(job_id)],
    )

    assert ended(store, job_id).notes == (NOTE,)
    events = store.events_after(0, job_id)
    told = ["queued", "started", "progress", "note", "preview", "image", "succeeded"]
    assert [event.type.value for event in events] == told
    assert events[3].data == {"note": NOTE}


def test_jobs_that_share_steps_share_their_time(store: Store, play: Play) -> None:
    one, two = accept(store), accept(store)
    together = [[Stepped(one, step, 6), Stepped(two, step, 6)] for step in range(1, 7)]

    play(
        [Started(one, 6)],
        [Started(two, 6)],
        *together,
        [ImageReady(one, 0, 7, PICTURE), Finished(one)],
        [ImageReady(two, 0, 7, PICTURE), Finished(two)],
        tick_s=0.5,
    )

    job = store.job(accept(store), ME)
    assert job is not None
    assert job.eta_seconds == 6 * 0.25 + 2 * 0.5


def test_a_job_that_brings_the_worker_down_each_time_comes_to_an_end(
    store: Store, worker: Leases, play: Play
) -> None:
    job_id = accept(store)

    for _ in range(3):
        with pytest.raises(IndexError):
            play([Started(job_id, 6)])  # and then the engine is gone
    worker.recover_own()

    job = ended(store, job_id)
    assert job.status is JobStatus.FAILED
    assert job.attempts == 3


def test_a_worker_that_stops_keeps_its_jobs_while_they_end(
    store: Store, worker: Leases, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may take longer than a lease. Its name goes with it."""
    job = accept(store)
    worker.lease_s = 0.2  # so that there is a heartbeat each 50 ms
    heartbeat, beats = worker.heartbeat, count(1)
    latest = 0

    def noted(**about: Any) -> bool:
        nonlocal latest
        latest = next(beats)
        return heartbeat(**about)

    def stop_and_go_on(dispatcher: Dispatcher) -> None:
        dispatcher.stop()
        before = latest
        eventually(lambda: latest > before + 1)

    monkeypatch.setattr(worker, "heartbeat", noted)
    play([Started(job, 1)], [Finished(job)], between=stop_and_go_on, shutdown_timeout_s=3600)

    assert ended(store, job).status is JobStatus.SUCCEEDED
    assert Workers(store.database, store.clock).all() == []


def test_a_picture_that_cannot_be_described_fails_its_job_only(store: Store, play: Play) -> None:
    bad, good = accept(store, scheduler="gone"), accept(store)

    play(
        [Started(bad, 1), Started(good, 1)],
        [ImageReady(bad, 0, 7, PICTURE), ImageReady(good, 0, 7, PICTURE), Finished(good)],
    )

    assert ended(store, bad).status is JobStatus.FAILED
    assert ended(store, good).status is JobStatus.SUCCEEDED
