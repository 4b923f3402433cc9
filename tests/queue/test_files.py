"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from darkroom.storage.files import FolderFiles


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    files.write("abc-0", b"first")
    files.write("abc-0", b"second")

    assert files.read("abc-0") == b"second"
    assert names(tmp_path) == ["abc-0"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FolderFiles(tmp_path)
    files.write("abc-0", b"before")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write("abc-0", b"after")

    assert files.read("abc-0") == b"before"
    assert names(tmp_path) == ["abc-0"]


def test_deleting_twice_is_fine(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    files.write("abc-0", b"x")
    files.delete("abc-0")
    files.delete("abc-0")

    with pytest.raises(FileNotFoundError):
        files.read("abc-0")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "/etc/passwd"])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        FolderFiles(tmp_path).read(name)
