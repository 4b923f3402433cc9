"""The disk is full, to the last byte: clear errors, service afterwards, nothing lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import RunningServer, running

pytestmark = pytest.mark.slow

FULL = "urn:darkroom:problem:disk-full"
NOT_STORED = "urn:darkroom:problem:storage"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB, in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this container's root may not mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break
    return filler


def test_a_full_disk_is_a_clear_error_and_costs_nothing_that_was_there(
    small_disk: Path, photo: Path
) -> None:
    with running(small_disk, DARKROOM_QUEUE__MIN_FREE_BYTES="0") as server:
        picture = server.txt2img().json()["images"][0]
        before = server.http.get(picture["url"]).content

        filler = fill(small_disk)
        refused = [server.txt2img() for _ in range(4)]
        upload = server.http.post(
            "/img2img", data={"prompt": "a pizza"}, files={"image": photo.read_bytes()}
        )

        for answer in (*refused, upload):
            assert answer.status_code == 507, answer.text
            assert answer.json()["type"] in (FULL, NOT_STORED)
        assert server.http.get(picture["url"]).content == before
        assert server.http.get("/healthz").status_code == 200

        filler.unlink()

        assert server.txt2img().json()["status"] == "succeeded"
        assert unfinished(server) == []
        assert list((small_disk / "images").rglob("*.tmp")) == []


def unfinished(server: RunningServer) -> list[object]:
    jobs = server.http.get("/jobs").json()["jobs"]
    return [job for job in jobs if job["status"] in ("queued", "running")]
