"""`darkroom backup`: a copy of a server at work, from which another one goes on."""

import errno
import os
from hashlib import sha256
from pathlib import Path

import pytest

from darkroom.config import Settings
from darkroom.storage import backup, database
from darkroom.storage.backup import BackupError
from darkroom.storage.files import FolderFiles
from tests.serving import running
from tests.test_cli import darkroom


def settings(data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with an empty database, one picture that nobody knows, and an authority."""
    folder = tmp_path / "data"
    database.migrate(settings(folder).database_path)
    FolderFiles(settings(folder).images_dir).write("job1-0", b"unknown")
    (folder / "webhooks.secret").write_text("whsec_")
    (folder / "tls").mkdir()
    (folder / "tls" / "ca.key").write_bytes(b"secret")
    (folder / "tls" / "ca.key").chmod(0o600)
    return folder


@pytest.mark.slow
def test_a_backup_of_a_busy_server_is_served_by_another_one(tmp_path: Path, photo: Path) -> None:
    data_dir, target = tmp_path / "data", tmp_path / "copy"
    with running(data_dir) as server:
        jobs = [server.submit(seed=seed, num_images=2) for seed in range(3)]
        answer = server.http.post(
            "/img2img", data={"prompt": "a pizza"}, files={"image": photo.read_bytes()}
        )
        unfinished = server.submit(num_inference_steps=100)
        next(event for event in server.events(unfinished["id"]) if event["event"] == "progress")

        result = darkroom("backup", str(target), "--data-dir", str(data_dir))

        assert result.returncode == 0, result.stderr
        assert "5 jobs and 8 pictures" in result.stdout
        finished = [*(server.finished(job["id"]) for job in jobs), answer.json()]
        bytes_by_url = {
            image["url"]: server.http.get(image["url"]).content
            for job in finished
            for image in job["images"]
        }
        expected = server.finished(unfinished["id"])["images"]

    with running(target) as server:
        again = server.finished(unfinished["id"])
        for url, content in bytes_by_url.items():
            assert server.http.get(url).content == content
        upload = answer.json()["request"]["image"].removeprefix("image:")
        assert server.http.get(f"/images/{upload}").status_code == 200

    assert [image["sha256"] for image in again["images"]] == [i["sha256"] for i in expected]
    assert "files of" not in result.stdout


def test_a_backup_holds_what_is_recorded_and_nothing_else(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"

    copied = backup.backup(settings(data), target)

    assert (copied.jobs, copied.pictures, copied.missing) == (0, 0, 0)
    names = sorted(path.name for path in target.rglob("*") if path.is_file())
    assert names == ["ca.key", "darkroom.db", "webhooks.secret"]
    assert (target / "webhooks.secret").read_text() == "whsec_"
    assert (target / "tls" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert target.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "copy.partial").exists()


def test_pictures_take_no_space_twice_on_one_disk(tmp_path: Path) -> None:
    one, other = FolderFiles(tmp_path / "one"), FolderFiles(tmp_path / "other")
    one.write("job1-0", b"x")

    assert one.share("job1-0", other)
    (path,) = (tmp_path / "other").rglob("job1-0")
    assert path.stat().st_nlink == 2


def test_pictures_are_copied_to_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(_source: object, _target: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr("os.link", link)
    one, other = FolderFiles(tmp_path / "one"), FolderFiles(tmp_path / "other")
    one.write("job1-0", b"x")

    assert one.share("job1-0", other)
    assert not one.share("job2-0", other)
    assert sha256(other.read("job1-0")).digest() == sha256(b"x").digest()


def test_what_is_there_already_is_not_touched(data: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()

    with pytest.raises(BackupError, match="already"):
        backup.backup(settings(data), tmp_path / "copy")

    (tmp_path / "other.partial").mkdir()
    with pytest.raises(BackupError, match="another backup runs"):
        backup.backup(settings(data), tmp_path / "other")


def test_a_full_disk_leaves_nothing_behind(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(BackupError, match="No space left"):
        backup.backup(settings(data), tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_damaged_database_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    path = settings(data).database_path
    path.write_bytes(path.read_bytes()[:8192] + b"\xff" * 8192 + path.read_bytes()[16384:])

    with pytest.raises(BackupError):
        backup.backup(settings(data), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_without_a_database_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    result = darkroom("backup", str(tmp_path / "copy"), "--data-dir", str(tmp_path / "none"))

    assert result.returncode == 1
    assert "there is no database" in result.stderr
