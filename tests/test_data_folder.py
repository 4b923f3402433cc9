"""Data folders that belong to others, cannot be written, or are on another machine."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from darkroom.config import Settings
from darkroom.ops import doctor
from darkroom.storage import data_folder, database
from tests.effort import sampled

NOBODY = 12345

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")


def as_nobody(*arguments: str, processes: int = 100) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user of whom no file is, and who may have so many processes."""
    return subprocess.run(
        [
            *("prlimit", f"--nproc={processes}:{processes}"),
            *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
            *(sys.executable, "-m", "darkroom", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": "/tmp"},
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder of nobody's, where nobody can reach it."""
    path = Path("/tmp") / f"darkroom-{os.getpid()}"
    path.mkdir()
    database.migrate(path / "darkroom.db")
    for found in (path, *path.rglob("*")):
        os.chown(found, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(["images", "orphans", "darkroom.db", "worker-0.pulse"]))
def test_what_is_roots_in_a_folder_ends_the_start(folder: Path, name: str) -> None:
    """Docker makes such folders; pictures would be drawn and lost."""
    (folder / name).touch() if "." in name else (folder / name).mkdir()
    os.chown(folder / name, 0, 0)
    for process in ("serve", "worker"):
        result = as_nobody(process, "--data-dir", str(folder), "--port", "1025")

        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert f"{folder / name} belongs to user 0" in line
        assert f"chown -R {NOBODY}" in line


@pytest.mark.slow
def test_a_folder_of_others_is_named_even_if_no_process_can_be_started(folder: Path) -> None:
    """`serve` starts the worker before it looks at the folder."""
    os.chown(folder, 0, 0)
    result = as_nobody("serve", "--data-dir", str(folder), "--port", "1025", processes=1)

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"{folder} belongs to user 0" in line


@pytest.mark.slow
def test_doctor_says_whose_folder_it_is(folder: Path) -> None:
    os.chown(folder, 0, 0)
    told = as_nobody("doctor", "--data-dir", str(folder)).stdout

    assert f"FAIL disk      {folder} belongs to user 0" in told
    assert f"FAIL database  {folder} belongs to user 0" in told
    assert f"chown -R {NOBODY}" in told
    assert "make install" not in told


@pytest.mark.slow
def test_doctor_says_so_of_a_folder_that_it_cannot_enter(folder: Path) -> None:
    os.chown(folder, 0, 0)
    folder.chmod(0o700)

    assert f"chown -R {NOBODY}" in as_nobody("doctor", "--data-dir", str(folder)).stdout


def test_doctor_makes_no_folder(tmp_path: Path) -> None:
    found = doctor.check_disk(Settings(data_dir=tmp_path / "none" / "yet"))

    assert found.ok
    assert "which the first start makes" in found.detail
    assert list(tmp_path.iterdir()) == []


def test_a_mount_for_reading_alone_is_told_of_as_such(tmp_path: Path) -> None:
    shares = ["unshare", "--mount", "sh", "-c"]
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    serve = f"{sys.executable} -m darkroom serve --data-dir {tmp_path}"
    if subprocess.run([*shares, mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine may not mount")
    result = subprocess.run(
        [*shares, f"{mount} && {serve}"], capture_output=True, text=True, timeout=120, check=False
    )

    assert result.returncode == 1
    assert f"{tmp_path} is on a file system that is mounted read-only" in result.stderr
    assert "chown" not in result.stderr


# As Linux writes them; the share has a space in its name.
MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:45 / /mnt/nas rw,relatime shared:9 - nfs4 nas:/volume1 rw,vers=4.2
91 22 0:46 / /mnt/the\040share rw,relatime shared:9 master:2 - cifs //nas/share rw,vers=3.1.1
92 90 8:2 / /mnt/nas/disk rw,relatime - xfs /dev/sdb1 rw
93 22 0:47 / /mnt/twice rw - nfs4 nas:/old rw
94 93 8:3 / /mnt/twice rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/data", None),
        ("/mnt/nas", "NFS"),
        ("/mnt/nas/darkroom/data", "NFS"),
        ("/mnt/nasty", None),
        ("/mnt/nas/disk/data", None),
        ("/mnt/the share/data", "SMB"),
        ("/mnt/twice/data", None),
    ],
)
def test_a_network_share_is_known_by_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str | None
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.lstrip())

    monkeypatch.setattr(data_folder, "MOUNTS", mounts)

    assert data_folder.network_file_system(Path(path)) == kind


def test_a_database_on_a_share_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path)
    database.migrate(settings.database_path)
    assert doctor.check_database(settings).ok
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"90 22 0:45 / {tmp_path} rw - nfs4 nas:/volume1 rw\n")
    monkeypatch.setattr(data_folder, "MOUNTS", mounts)

    found = doctor.check_database(settings)

    assert not found.ok
    assert "network share (NFS)" in found.detail
    assert "on a disk of this machine" in found.advice


def test_a_database_without_its_log_is_told_of(tmp_path: Path) -> None:
    """SQLite keeps another mode where it cannot have a write-ahead log."""
    settings = Settings(data_dir=tmp_path)
    database.migrate(settings.database_path)
    with closing(sqlite3.connect(settings.database_path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")

    found = doctor.check_database(settings)

    assert not found.ok
    assert "mode delete, not in its WAL" in found.detail


def test_a_model_that_may_not_be_read_says_so(folder: Path) -> None:
    models = folder / "models"
    models.mkdir()
    (models / "secret.safetensors").write_bytes(b"not for everybody")
    (models / "secret.safetensors").chmod(0o600)
    listed = as_nobody("models", "list", "--data-dir", str(folder)).stdout

    assert (
        "! secret  cannot be used: secret.safetensors cannot be read: Permission denied" in listed
    )
