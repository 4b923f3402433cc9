"""Downloads of two machines whose web processes share a database: each has its own."""

from pathlib import Path

import pytest

from darkroom.catalog.downloads import Plan, Wanted
from darkroom.queue.pulls import Pulls, UnknownPullError
from darkroom.responses import JobStatus
from darkroom.storage.database import Database


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
