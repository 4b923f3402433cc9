"""After a start, files and records agree; nothing that might be somebody's picture is lost."""

from pathlib import Path

import pytest

from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.storage import reconcile
from darkroom.storage.database import Database
from darkroom.storage.files import Files
from darkroom.storage.reconcile import Reconciled
from tests.queue.conftest import Clock, Hire, accept, upload_of
from tests.queue.test_store import image

UPLOAD = "up0123456789abcdef01234567"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "images")


@pytest.fixture
def orphans(tmp_path: Path) -> Files:
    return Files(tmp_path / "orphans")


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
