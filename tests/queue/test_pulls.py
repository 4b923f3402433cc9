"""Downloads of two machines whose web processes share a database: each has its own."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from darkroom.catalog.downloads import Hubs, Plan, Wanted
from darkroom.ops.puller import Puller
from darkroom.queue.pulls import Pulls, UnknownPullError
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from tests.waiting import eventually


def plan(data_dir: Path, name: str) -> Plan:
    return Plan(
        pinned=Wanted(f"owner/{name}"),
        kind="models",
        name=name,
        title=name,
        target=data_dir / "models" / name,
        unfinished=data_dir / "models" / f".{name}.pull",
        files=1,
        total_bytes=10,
    )


def test_a_machine_works_on_the_downloads_into_its_own_folder(
    opened: Database, tmp_path: Path
) -> None:
    here, there = (Pulls(opened, tmp_path / name, folder=name) for name in ("here", "there"))
    asked, new = there.ask(plan(there.data_dir, "fox"))
    assert new
    assert here.begin() is None
    assert here.all() == []
    with pytest.raises(UnknownPullError):
        here.stop(asked.id)

    own, new = here.ask(plan(here.data_dir, "fox"))
    assert new
    begun = here.begin()
    assert begun is not None
    assert (begun.id, begun.target) == (own.id, tmp_path / "here/models/fox")

    theirs = there.begin()
    assert theirs is not None
    here.put_back()
    assert there.find(theirs.id).status is JobStatus.RUNNING
    assert here.find(own.id).status is JobStatus.QUEUED


def test_a_download_that_brings_nothing_any_more_comes_to_an_end(
    opened: Database, tmp_path: Path
) -> None:
    """What was here before its process began again is nothing new."""
    pulls = Pulls(opened, tmp_path, folder="here")
    asked, _ = pulls.ask(plan(tmp_path, "fox"))
    for restarts in range(3):
        job = pulls.begin()
        assert job is not None
        assert (job.restarts, job.done_bytes) == (restarts, 7 if restarts else 0)
        pulls.progress(job.id, 7, None)
        pulls.put_back(asked.id, died=True)
    job = pulls.begin()
    assert job is not None
    pulls.progress(job.id, 8, None)
    pulls.put_back(asked.id, died=True)
    last = pulls.begin()
    assert last is not None
    assert last.restarts == 1


def test_a_lock_that_cannot_be_written_ends_no_downloads_for_good(
    opened: Database, tmp_path: Path
) -> None:
    lock = tmp_path / "pull.lock"
    lock.mkdir()  # as a disk without room: an OSError
    hubs = Hubs(tmp_path, "http://127.0.0.1:9", None)
    puller = Puller(Pulls(opened, tmp_path, folder="here"), hubs, lock)

    with capture_logs() as said:
        puller.start()
        eventually(lambda: any("wait for the disk" in line["event"] for line in said))
    assert puller._thread is not None
    assert puller._thread.is_alive()
    puller.stop()
