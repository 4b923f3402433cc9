"""What is too old or too much goes, the oldest first; what somebody still needs stays."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.config import RetentionSettings
from darkroom.queue.leases import Leases
from darkroom.queue.presence import Workers
from darkroom.queue.retention import DAY_S, YOUNG_S, Janitor, Retention, Swept
from darkroom.queue.store import Store
from darkroom.requests import Task
from darkroom.responses import EventType, JobStatus
from darkroom.storage.database import Database
from darkroom.storage.files import Files, FolderFiles
from darkroom.storage.records import NewEvent, preview_data
from tests.queue.conftest import ME, Clock, Hire, accept, upload_of
from tests.queue.test_store import image
from tests.waiting import PATIENCE_S

UPLOAD = "up0123456789abcdef01234567"
NOTHING = Swept(jobs=0, pictures=0, uploads=0, previews=0, orphans=0)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "images")


@pytest.fixture
def orphans(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "orphans")


Keep = Callable[..., Retention]


@pytest.fixture
def keep(opened: Database, files: Files, orphans: Files, clock: Clock) -> Keep:
    """Retention with settings; what is not said is off."""

    def make(**settings: float) -> Retention:
        off = {"preview_days": 0, "orphan_days": 0}
        wanted = RetentionSettings.model_validate(off | settings)
        return Retention(opened, files, orphans, wanted, clock)

    return make


Develop = Callable[..., str]


@pytest.fixture
def develop(store: Store, worker: Leases, files: Files, clock: Clock) -> Develop:
    """Has a job done, with a preview and a picture of 3 bytes a second later; its id."""

    def do(**fields: object) -> str:
        job_id = accept(store, **fields)  # type: ignore[arg-type]
        assert worker.claim(busy=False)
        preview = NewEvent(job_id, EventType.PREVIEW, preview_data(b"webp"))
        worker.record([preview], {})
        files.write(f"{job_id}-0", b"PNG")
        worker.add_image(image(job_id))
        clock.now += 1
        worker.finish(job_id, JobStatus.SUCCEEDED)
        return job_id

    return do


def there(store: Store, *job_ids: str) -> list[bool]:
    return [store.job(job_id, ME) is not None for job_id in job_ids]


def test_nothing_is_deleted_unless_a_setting_says_so(keep: Keep, develop: Develop) -> None:
    develop()

    assert keep().sweep() == NOTHING


def test_a_job_that_ended_too_long_ago_goes_whole(
    keep: Keep, develop: Develop, store: Store, files: Files, clock: Clock
) -> None:
    old = develop()
    clock.now += 2 * DAY_S
    young = develop()

    swept = keep(max_age_days=1).sweep()

    assert (swept.jobs, swept.pictures) == (1, 1)
    assert there(store, old, young) == [False, True]
    assert set(files.names()) == {f"{young}-0"}
    assert store.picture(f"{old}-0", None) is None
    assert store.events_after(0, old) == []


def test_waiting_jobs_do_not_grow_old(keep: Keep, store: Store, clock: Clock) -> None:
    waiting = accept(store)
    clock.now += 100 * DAY_S

    assert keep(max_age_days=1).sweep() == NOTHING
    assert there(store, waiting) == [True]


@pytest.mark.parametrize("limit", [{"max_pictures": 2}, {"max_bytes": 6}])
def test_the_oldest_go_when_there_is_too_much(
    keep: Keep, develop: Develop, store: Store, limit: dict[str, float]
) -> None:
    jobs = [develop() for _ in range(5)]

    assert keep(**limit).sweep().jobs == 3
    assert there(store, *jobs) == [False, False, False, True, True]


def test_more_jobs_than_one_transaction_takes_go_too(
    keep: Keep, store: Store, clock: Clock
) -> None:
    for _ in range(120):
        store.cancel(accept(store), ME)
    clock.now += 2 * DAY_S

    assert keep(max_age_days=1).sweep().jobs == 120


def test_a_picture_that_an_unfinished_job_works_from_stays_with_its_job(
    keep: Keep, develop: Develop, store: Store, clock: Clock
) -> None:
    source = develop()
    clock.now += 2 * DAY_S
    later = accept(store, task=Task.IMG2IMG, image=f"image:{source}-0")
    retention = keep(max_age_days=1)

    assert retention.sweep() == NOTHING

    store.cancel(later, ME)
    assert retention.sweep().jobs == 1
    assert there(store, source, later) == [False, True]


def test_an_upload_stays_as_long_as_any_job_was_made_from_it(
    keep: Keep, develop: Develop, store: Store, files: Files, clock: Clock
) -> None:
    files.write(UPLOAD, b"x")
    uploaded = {"task": Task.IMG2IMG, "image": f"image:{UPLOAD}"}
    develop(uploads=(upload_of(UPLOAD),), **uploaded)
    clock.now += 2 * DAY_S
    develop(**uploaded)
    retention = keep(max_age_days=1)

    assert (retention.sweep().jobs, store.picture(UPLOAD, ME) is None) == (1, False)

    clock.now += 2 * DAY_S
    assert retention.sweep().uploads == 1
    assert store.picture(UPLOAD, ME) is None
    assert list(files.names()) == []


def test_every_reference_of_an_edit_stays_as_long_as_its_job(
    keep: Keep, develop: Develop, store: Store, files: Files, clock: Clock
) -> None:
    other = UPLOAD.replace("0", "f")
    for name in (UPLOAD, other):
        files.write(name, b"x")
    references = [f"image:{UPLOAD}", f"image:{other}"]
    uploads = (upload_of(UPLOAD), upload_of(other))
    develop(uploads=uploads, task=Task.EDIT, references=references)
    clock.now += 0.5 * DAY_S
    retention = keep(max_age_days=1)

    assert retention.sweep() == NOTHING

    clock.now += DAY_S
    assert (retention.sweep().jobs, list(files.names())) == (1, [])
    assert store.picture(other, ME) is None


def test_an_image_that_a_waiting_edit_speaks_of_stays(
    keep: Keep, develop: Develop, store: Store, clock: Clock
) -> None:
    first, second = develop(), develop()
    accept(store, task=Task.EDIT, references=[f"image:{first}-0", f"image:{second}-0"])
    clock.now += 2 * DAY_S

    assert keep(max_age_days=1).sweep() == NOTHING
    assert there(store, first, second) == [True, True]


def test_a_young_upload_stays_for_an_hour(
    keep: Keep, develop: Develop, files: Files, clock: Clock
) -> None:
    files.write(UPLOAD, b"x")
    develop(uploads=(upload_of(UPLOAD),), task=Task.IMG2IMG, image=f"image:{UPLOAD}")
    develop()
    retention = keep(max_pictures=1)

    assert retention.sweep() == Swept(jobs=1, pictures=1, uploads=0, previews=0, orphans=0)

    clock.now += YOUNG_S
    assert retention.sweep().uploads == 1


def test_uploads_count_as_bytes_and_go_with_the_last_job_that_needs_them(
    keep: Keep, develop: Develop, store: Store, clock: Clock
) -> None:
    from_upload = develop(
        uploads=(upload_of(UPLOAD, size=100),), task=Task.IMG2IMG, image=f"image:{UPLOAD}"
    )
    others = [develop() for _ in range(3)]
    clock.now += 2 * YOUNG_S

    swept = keep(max_bytes=20).sweep()

    assert (swept.jobs, swept.uploads) == (1, 1)  # no picture goes for the upload's bytes
    assert there(store, from_upload, *others) == [False, True, True, True]


def test_previews_go_before_their_jobs_do(
    keep: Keep, develop: Develop, store: Store, clock: Clock
) -> None:
    old = develop()
    clock.now += 31 * DAY_S
    young = develop()
    retention = keep(preview_days=30)

    assert retention.sweep() == Swept(jobs=0, pictures=0, uploads=0, previews=1, orphans=0)
    assert (len(store.previews(old, 10)), len(store.previews(young, 10))) == (0, 1)
    assert store.picture(f"{old}-0", ME) is not None

    clock.now += 31 * DAY_S
    assert retention.sweep().previews == 1


def test_orphans_are_deleted_a_week_after_they_were_put_aside(
    keep: Keep, files: Files, orphans: Files, clock: Clock
) -> None:
    files.write("job9-0", b"x")
    clock.now += 30 * DAY_S  # the file itself is old
    files.move("job9-0", orphans, clock.now)
    retention = keep(orphan_days=7)

    clock.now += 6 * DAY_S
    assert retention.sweep() == NOTHING

    clock.now += 2 * DAY_S
    assert retention.sweep().orphans == 1
    assert list(orphans.names()) == []


def test_the_janitor_goes_on_after_a_sweep_that_failed() -> None:
    again = threading.Event()
    sweeps = iter([OSError("the disk is away"), None])

    def sweep() -> None:
        error = next(sweeps, None)
        if error is not None:
            raise error
        again.set()

    janitor = Janitor(sweep, every_s=0.001)
    janitor.start()

    assert again.wait(PATIENCE_S)
    janitor.stop()


def test_workers_that_are_gone_are_forgotten_but_not_that_they_drain(
    keep: Keep, opened: Database, hire: Hire, clock: Clock
) -> None:
    workers = Workers(opened, clock)
    for name in ("gone", "drains"):
        hire(name).heartbeat(ready=True, device="cpu", max_in_flight=4)
    draining = hire("drains")
    draining.heartbeat(ready=True, device="cpu", max_in_flight=4)
    workers.drain("drains", draining=True)
    draining.give_back()

    clock.now += 2 * DAY_S
    keep().sweep()

    assert [(worker.name, worker.draining) for worker in workers.all()] == [("drains", True)]
