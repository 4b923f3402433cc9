"""Files behind a URL: what a folder promises, whatever is behind it, and what S3 adds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from darkroom.errors import DarkroomError
from darkroom.storage import remote_files
from darkroom.storage.files import Files, FilesUnavailableError, FolderFiles
from darkroom.storage.remote_files import RemoteFiles
from tests import s3

Open = Callable[[str], Files]

ON_S3 = pytest.mark.parametrize("kind", ["s3"], indirect=True)


class NotMineError(DarkroomError):
    """The caller may not replace a file."""


def refuse() -> None:
    raise NotMineError


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a place's folder by its name."""
    options: dict[str, Any] = {}
    url = {"file": f"file://{tmp_path}/here", "memory": f"memory://{uuid4().hex}"}.get(kind, "")
    if kind == "s3":
        server: s3.Server = request.getfixturevalue("s3_server")
        url, options = f"{server.bucket()}/some/prefix", server.options
    if kind == "folder":
        yield lambda name: FolderFiles(tmp_path / name)
    else:
        yield lambda name: RemoteFiles(url, name, options)


@pytest.fixture
def files(place: Open) -> Files:
    return place("images")


def test_what_was_written_is_read(files: Files) -> None:
    files.write("abc-0", b"first")
    files.write("abc-0", b"second")
    files.write("abc-1", b"")

    assert files.read("abc-0") == b"second"
    assert files.read("abc-1") == b""
    assert sorted(files.names()) == ["abc-0", "abc-1"]


def test_deleting_twice_is_fine(files: Files) -> None:
    files.write("abc-0", b"x")
    files.delete("abc-0")
    files.delete("abc-0")

    with pytest.raises(FileNotFoundError):
        files.read("abc-0")
    assert list(files.names()) == []


def test_a_place_where_nothing_was_written_is_empty(files: Files) -> None:
    assert list(files.names()) == []
    assert files.delete_older(time.time()) == 0
    with pytest.raises(FileNotFoundError):
        files.read("abc-0")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "."])
def test_a_name_is_never_a_path(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        files.read(name)


def test_a_file_is_moved_once(place: Open, files: Files) -> None:
    orphans = place("orphans")
    files.write("abc-0", b"x")

    assert files.move("abc-0", orphans)
    assert not files.move("abc-0", orphans)

    assert list(files.names()) == []
    assert orphans.read("abc-0") == b"x"


def test_a_file_is_copied_to_a_folder(files: Files, tmp_path: Path) -> None:
    backup = FolderFiles(tmp_path / "backup")
    files.write("abc-0", b"x")

    assert files.share("abc-0", backup)
    assert not files.share("abc-1", backup)

    assert (backup.read("abc-0"), files.read("abc-0")) == (b"x", b"x")


def test_old_files_are_deleted_by_the_clock_of_the_place(files: Files) -> None:
    files.write("abc-0", b"x")
    now = files.now()

    assert abs(now - time.time()) < 60
    assert files.delete_older(now - 60) == 0
    assert "abc-0" in files.names()
    assert files.delete_older(now + 60) >= 1
    assert list(files.names()) == []


def test_the_same_names_lead_to_the_same_places_as_in_a_folder(tmp_path: Path) -> None:
    """So a folder can be copied there, and back, by other programs."""
    FolderFiles(tmp_path / "images").write("abc-0", b"x")

    assert RemoteFiles(f"file://{tmp_path}", "images", {}).read("abc-0") == b"x"


@pytest.mark.parametrize("kind", ["file", "memory", "s3"], indirect=True)
def test_who_may_not_replace_a_file_does_not(files: Files) -> None:
    files.write("abc-0", b"of a worker that has lost its lease since", refuse)
    with pytest.raises(NotMineError):
        files.write("abc-0", b"late", refuse)
    assert files.read("abc-0") == b"of a worker that has lost its lease since"

    files.write("abc-0", b"of the one that has it", lambda: None)
    assert files.read("abc-0") == b"of the one that has it"


@ON_S3
def test_a_file_that_another_replaced_meanwhile_is_asked_for_again(files: Files) -> None:
    files.write("abc-0", b"left by a first attempt")
    asked = []

    def lose_the_lease() -> None:
        asked.append(files.read("abc-0"))
        if len(asked) > 1:
            raise NotMineError
        files.write("abc-0", b"of the worker that took the job over")

    with pytest.raises(NotMineError):
        files.write("abc-0", b"late", lose_the_lease)

    assert asked == [b"left by a first attempt", b"of the worker that took the job over"]
    assert files.read("abc-0") == b"of the worker that took the job over"


@ON_S3
def test_a_place_that_works_leaves_nothing_of_the_check(files: Files) -> None:
    files.check()

    assert list(files.names()) == []


def test_a_missing_bucket_is_not_a_missing_file(s3_server: s3.Server) -> None:
    files = RemoteFiles("s3://no-such-bucket", "images", s3_server.options)

    for use in (lambda: files.read("abc-0"), lambda: files.write("abc-0", b"x"), files.check):
        with pytest.raises(FilesUnavailableError, match="does not exist") as caught:
            use()
        assert "make the bucket" in caught.value.advice


def test_credentials_that_are_missing_are_asked_for(
    s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in s3.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    files = RemoteFiles(s3_server.bucket(), "images", {"endpoint_url": s3_server.url})

    with pytest.raises(FilesUnavailableError, match="refuses") as caught:
        files.check()
    assert "AWS_ACCESS_KEY_ID" in caught.value.advice


def test_an_error_shows_no_password(s3_server: s3.Server) -> None:
    options = s3_server.options | {"endpoint_url": "http://me:secret@127.0.0.1:1"}
    files = RemoteFiles("s3://bucket", "images", options)

    with pytest.raises(FilesUnavailableError) as caught:
        files.read("abc-0")

    assert "secret" not in f"{caught.getrepr(showlocals=False, style='native')}"
    assert caught.value.advice == ""


@ON_S3
def test_while_a_place_hangs_one_waits_and_the_others_are_told_at_once(files: Files) -> None:
    files.write("abc-0", b"x")
    assert isinstance(files, RemoteFiles)
    gate = files._gate
    with pytest.raises(FilesUnavailableError), gate.passing():
        raise FilesUnavailableError("the place of files cannot be reached")

    with gate.passing():  # somebody tries
        began = time.monotonic()
        with pytest.raises(FilesUnavailableError, match="cannot be reached"):
            files.read("abc-0")
        assert time.monotonic() - began < 1

    assert files.read("abc-0") == b"x"


@pytest.mark.slow
def test_a_server_that_answers_nothing_is_given_up_in_time(s3_server: s3.Server) -> None:
    quick = {"connect_timeout": 1, "read_timeout": 1}
    files = RemoteFiles(s3_server.bucket(), "images", s3_server.options | {"config_kwargs": quick})
    files.write("abc-0", b"x")

    s3_server.stop()
    try:
        began = time.monotonic()
        with pytest.raises(FilesUnavailableError, match="cannot be reached"):
            files.read("abc-0")
        took = time.monotonic() - began
    finally:
        s3_server.go_on()

    assert took < remote_files.TRIES * 1 + 5
    assert files.read("abc-0") == b"x"
