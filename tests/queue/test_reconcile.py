"""After a start, files and records agree; nothing that might be somebody's picture is lost."""

from pathlib import Path

import pytest

from darkroom.config import Settings
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.responses import JobStatus
from darkroom.storage import reconcile
from darkroom.storage.database import Database
from darkroom.storage.files import Files, FolderFiles
from darkroom.storage.reconcile import MARGIN_S, Reconciled, Review
from darkroom.storage.remote_files import RemoteFiles
from tests.queue.conftest import Clock, Hire, accept, upload_of
from tests.queue.test_store import image

UPLOAD = "up0123456789abcdef01234567"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "images")


@pytest.fixture
def orphans(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "orphans")


def half_written(tmp_path: Path, files: Files, name: str) -> Path:
    """What a process that was killed while it wrote `name` leaves behind."""
    files.write(name, b"x")
    (path,) = (tmp_path / "images").rglob(name)
    return path.rename(path.with_name(f".{name}.4711.tmp"))


def test_a_picture_that_was_written_and_not_recorded_is_put_aside(
    opened: Database, store: Store, worker: Leases, clock: Clock, files: Files, orphans: Files
) -> None:
    job = accept(store)
    worker.claim(busy=False)
    files.write(f"{job}-0", b"recorded")
    worker.add_image(image(job))
    files.write(f"{job}-1", b"not recorded")

    found = reconcile.outputs(opened, files, orphans, "w", clock)

    assert found == Reconciled(orphans=1, temporaries=0, missing=0)
    assert set(files.names()) == {f"{job}-0"}
    assert orphans.read(f"{job}-1") == b"not recorded"


def test_an_upload_whose_request_was_never_accepted_is_put_aside(
    opened: Database, store: Store, files: Files, orphans: Files
) -> None:
    files.write(UPLOAD, b"accepted")
    accept(store, uploads=(upload_of(UPLOAD),))
    files.write(UPLOAD[:-1] + "0", b"not accepted")

    found = reconcile.uploads(opened, files, orphans)

    assert found == Reconciled(orphans=1, temporaries=0, missing=0)
    assert set(files.names()) == {UPLOAD}


def test_half_written_files_are_deleted_by_the_process_whose_kind_they_are(
    opened: Database, clock: Clock, files: Files, orphans: Files, tmp_path: Path
) -> None:
    upload = half_written(tmp_path, files, UPLOAD)
    output = half_written(tmp_path, files, "job1-0")

    assert reconcile.uploads(opened, files, orphans).temporaries == 1
    assert (upload.exists(), output.exists()) == (False, True)

    assert reconcile.outputs(opened, files, orphans, "w", clock).temporaries == 1
    assert not output.exists()


def test_each_process_leaves_the_others_files_alone(
    opened: Database, clock: Clock, files: Files, orphans: Files
) -> None:
    files.write(UPLOAD, b"being accepted by a live web process")
    files.write("job1-0", b"being recorded by a live worker")

    reconcile.outputs(opened, files, orphans, "w", clock)
    assert set(files.names()) == {UPLOAD}

    files.write("job1-0", b"again")
    reconcile.uploads(opened, files, orphans)
    assert set(files.names()) == {"job1-0"}


def test_a_job_of_another_live_worker_keeps_its_files(
    opened: Database,
    store: Store,
    hire: Hire,
    clock: Clock,
    files: Files,
    orphans: Files,
    tmp_path: Path,
) -> None:
    job = accept(store)
    hire("other").claim(busy=False)
    files.write(f"{job}-0", b"about to be recorded")
    half_written(tmp_path, files, f"{job}-1")

    assert reconcile.outputs(opened, files, orphans, "w", clock) == Reconciled(0, 0, 0)

    clock.now += 31  # and its lease has lapsed
    assert reconcile.outputs(opened, files, orphans, "w", clock) == Reconciled(1, 1, 0)


def test_what_the_dead_worker_of_this_name_left_is_judged_at_once(
    opened: Database, store: Store, worker: Leases, clock: Clock, files: Files, orphans: Files
) -> None:
    job = accept(store)
    worker.claim(busy=False)
    files.write(f"{job}-0", b"written, and then it was killed")

    assert reconcile.outputs(opened, files, orphans, "w", clock).orphans == 1


def test_a_record_whose_file_is_away_stays(
    opened: Database, store: Store, worker: Leases, clock: Clock, files: Files, orphans: Files
) -> None:
    job = accept(store)
    worker.claim(busy=False)
    worker.add_image(image(job))

    assert reconcile.outputs(opened, files, orphans, "w", clock).missing == 1
    assert reconcile.missing(opened, files) == 1
    assert store.picture(f"{job}-0", None) is not None


def test_what_somebody_else_put_into_the_folder_stays(
    opened: Database, clock: Clock, files: Files, orphans: Files, tmp_path: Path
) -> None:
    files.write("job1-0", b"x")  # makes a subfolder
    (subfolder,) = (path for path in (tmp_path / "images").iterdir() if path.is_dir())
    strange = [subfolder / "notes.txt", subfolder / "a-0", tmp_path / "images" / "job2-0"]
    for path in strange:
        path.write_bytes(b"x")

    reconcile.outputs(opened, files, orphans, "w", clock)
    reconcile.uploads(opened, files, orphans)

    assert all(path.exists() for path in strange)


def test_orphans_can_be_put_back_with_a_copy(
    opened: Database, clock: Clock, files: Files, orphans: Files, tmp_path: Path
) -> None:
    files.write("job1-0", b"of a job in a newer database")
    (before,) = (tmp_path / "images").rglob("job1-0")
    reconcile.outputs(opened, files, orphans, "w", clock)
    (after,) = (tmp_path / "orphans").rglob("job1-0")

    assert after.relative_to(tmp_path / "orphans") == before.relative_to(tmp_path / "images")


# --- where several machines write ----------------------------------------------------------

LONG_AGO = 10 * MARGIN_S


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Files, Files]:
    """Where pictures are and where orphans are put, in one place."""
    if request.param == "folder":
        return FolderFiles(tmp_path / "images"), FolderFiles(tmp_path / "orphans")
    server = request.getfixturevalue("s3_server")
    url = server.bucket()
    found = (RemoteFiles(url, name, server.options) for name in ("images", "orphans"))
    return next(found), next(found)


def review(
    opened: Database, shared: tuple[Files, Files], monkeypatch: pytest.MonkeyPatch, later_s: float
) -> Reconciled:
    """Judge all files as if so much time had passed since they were written."""
    files, orphans = shared
    now = files.now() + later_s
    monkeypatch.setattr(files, "now", lambda: now)
    return Review(opened, files, orphans, lease_s=30, parts=256).sweep()


def test_a_young_file_is_not_judged(
    opened: Database, shared: tuple[Files, Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = shared
    files.write(UPLOAD, b"being accepted by another web process")
    files.write("job1-0", b"being recorded by another worker")

    assert review(opened, shared, monkeypatch, 0).orphans == 0
    assert review(opened, shared, monkeypatch, MARGIN_S).orphans == 0
    assert review(opened, shared, monkeypatch, LONG_AGO).orphans == 2


def test_only_old_files_without_a_record_are_put_aside(
    opened: Database,
    store: Store,
    worker: Leases,
    shared: tuple[Files, Files],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, orphans = shared
    files.write(UPLOAD, b"accepted")
    job = accept(store, uploads=(upload_of(UPLOAD),))
    worker.claim(busy=False)
    files.write(f"{job}-0", b"recorded")
    worker.add_image(image(job))
    worker.finish(job, JobStatus.SUCCEEDED)
    files.write(f"{job}-1", b"written by a worker that had lost the job")
    files.write("gone-0", b"of a job that was deleted")
    files.write("strange", b"somebody else's")

    found = review(opened, shared, monkeypatch, LONG_AGO)

    assert found.orphans == 2
    assert {UPLOAD, f"{job}-0", "strange"} <= set(files.names())
    assert set(orphans.names()) == {f"{job}-1", "gone-0"}


def test_a_file_of_an_unfinished_job_is_not_judged_however_old_it_is(
    opened: Database,
    store: Store,
    worker: Leases,
    shared: tuple[Files, Files],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its worker may have waited for the database all the time."""
    job = accept(store)
    worker.claim(busy=False)
    shared[0].write(f"{job}-0", b"to be recorded when the database is back")

    assert review(opened, shared, monkeypatch, 1000 * LONG_AGO).orphans == 0


def test_a_review_lists_a_share_of_the_files_at_a_time_and_all_in_the_end(
    opened: Database, files: Files, orphans: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"gone-{number}" for number in range(64)}
    for name in names:
        files.write(name, b"x")
    now = files.now() + LONG_AGO
    monkeypatch.setattr(files, "now", lambda: now)
    judge = Review(opened, files, orphans, lease_s=30, parts=16)

    moved = [judge.sweep().orphans for _ in range(16)]

    assert set(orphans.names()) == names
    assert max(moved) < len(names) / 2


def test_nothing_is_judged_at_a_start_where_others_may_write(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "storage": {"files_url": "s3://not-even-asked"}}
    )

    reconcile.at_web_start(settings)

    assert list(tmp_path.iterdir()) == []
