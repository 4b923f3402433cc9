"""What explains a picture is recorded with it, and goes with it."""

from hashlib import sha256
from pathlib import Path

import pytest

from darkroom.config import RetentionSettings
from darkroom.queue.leases import Leases
from darkroom.queue.retention import DAY_S, Retention
from darkroom.queue.store import Store
from darkroom.responses import JobStatus
from darkroom.storage import reconcile
from darkroom.storage.database import Database
from darkroom.storage.files import Files, FolderFiles
from darkroom.storage.records import StoredExplanation, explanation_name
from darkroom.storage.tables import ExplanationRow
from tests.queue.conftest import ME, Clock, accept
from tests.queue.test_store import image


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "images")


@pytest.fixture
def orphans(tmp_path: Path) -> Files:
    return FolderFiles(tmp_path / "orphans")


def explain(files: Files, job_id: str, text: bytes) -> ExplanationRow:
    """The record of what explains a job's first picture, whose file is written."""
    name = explanation_name(f"{job_id}-0")
    files.write(name, text)
    return ExplanationRow(
        id=name,
        image_id=f"{job_id}-0",
        job_id=job_id,
        index=0,
        bytes=len(text),
        sha256=sha256(text).hexdigest(),
    )


@pytest.fixture
def job(store: Store, worker: Leases, files: Files) -> str:
    """With a picture of 3 bytes that 9 more explain; it runs."""
    job_id = accept(store)
    assert worker.claim(busy=False)
    files.write(f"{job_id}-0", b"PNG")
    worker.add_image(image(job_id), explain(files, job_id, b"{'a': 12}"))
    return job_id


def test_it_is_recorded_with_its_picture(store: Store, job: str) -> None:
    (stored,) = store.explanations(job)

    digest = sha256(b"{'a': 12}").hexdigest()
    assert stored == StoredExplanation(f"{job}-0-explain", 0, digest)


def test_that_of_a_second_run_takes_the_place_of_the_first(
    store: Store, worker: Leases, files: Files, job: str
) -> None:
    worker.add_image(image(job), explain(files, job, b"other seconds"))

    (stored,) = store.explanations(job)
    assert stored.sha256 == sha256(b"other seconds").hexdigest()
    assert sha256(files.read(stored.name)).hexdigest() == stored.sha256


def test_it_goes_with_its_picture(store: Store, job: str) -> None:
    assert store.delete_picture(f"{job}-0", ME) == (f"{job}-0", f"{job}-0-explain")
    assert store.explanations(job) == []


def test_it_goes_with_its_job(
    opened: Database,
    store: Store,
    worker: Leases,
    files: Files,
    orphans: Files,
    clock: Clock,
    job: str,
) -> None:
    worker.finish(job, JobStatus.SUCCEEDED)
    limits = RetentionSettings.model_validate({"max_age_days": 1})
    clock.now += 2 * DAY_S

    swept = Retention(opened, files, orphans, limits, clock).sweep()

    assert (swept.jobs, swept.pictures) == (1, 1)
    assert list(files.names()) == []
    assert store.explanations(job) == []


@pytest.mark.parametrize(("limit", "deleted"), [(12, 0), (11, 1)])
def test_its_bytes_count(
    opened: Database,
    worker: Leases,
    files: Files,
    orphans: Files,
    clock: Clock,
    job: str,
    limit: int,
    deleted: int,
) -> None:
    worker.finish(job, JobStatus.SUCCEEDED)
    limits = RetentionSettings.model_validate({"max_bytes": limit})

    assert Retention(opened, files, orphans, limits, clock).sweep().jobs == deleted


def test_one_that_was_written_and_not_recorded_is_put_aside(
    opened: Database, files: Files, orphans: Files, clock: Clock, job: str
) -> None:
    """By a worker that died between the two."""
    files.write(f"{job}-1-explain", b"not recorded")

    found = reconcile.outputs(opened, files, orphans, "w", clock)

    assert found.orphans == 1
    assert set(files.names()) == {f"{job}-0", f"{job}-0-explain"}
    assert orphans.read(f"{job}-1-explain") == b"not recorded"


def test_one_whose_file_is_gone_is_counted(opened: Database, files: Files, job: str) -> None:
    files.delete(f"{job}-0-explain")

    assert reconcile.missing(opened, files) == 1
