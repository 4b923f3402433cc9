"""SHA-256 of files: made in the background, once, and again when a file changes."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from darkroom.catalog import hashes
from darkroom.catalog.hashes import Hashes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path


def expected(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_a_hash_is_known_after_a_look(tmp_path: Path, file: Path) -> None:
    known = Hashes(tmp_path / "hashes.json", lambda: [file])
    assert known.of(file) is None

    known.look()

    assert known.of(file) == expected(file)


def test_hashes_are_kept_and_not_made_again(tmp_path: Path, file: Path) -> None:
    """A change that keeps size and time is not seen, since the file is not read again."""
    Hashes(tmp_path / "hashes.json", lambda: [file]).look()
    first, stat = expected(file), file.stat()
    file.write_bytes(b"WEIGHTS" * 1000)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = Hashes(tmp_path / "hashes.json", lambda: [file])

    again.look()

    assert again.of(file) == first != expected(file)


def test_a_changed_file_has_no_hash_until_the_next_look(tmp_path: Path, file: Path) -> None:
    known = Hashes(tmp_path / "hashes.json", lambda: [file])
    known.look()
    before = known.of(file)

    file.write_bytes(b"other weights")

    assert known.of(file) is None
    known.look()
    assert known.of(file) == expected(file) != before


def test_a_file_that_is_gone_is_forgotten(tmp_path: Path, file: Path) -> None:
    there = [file]
    known = Hashes(tmp_path / "hashes.json", lambda: there)
    known.look()
    file.unlink()
    there.clear()

    known.look()

    assert known.of(file) is None
    assert (tmp_path / "hashes.json").read_text() == "{}"


def test_a_file_that_cannot_be_read_stops_no_other(tmp_path: Path, file: Path) -> None:
    known = Hashes(tmp_path / "hashes.json", lambda: [tmp_path / "none", tmp_path, file])

    known.look()

    assert known.of(file) == expected(file)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": 1}', "[" * 10**5])
def test_a_damaged_store_is_made_again(tmp_path: Path, file: Path, content: str) -> None:
    (tmp_path / "hashes.json").write_text(content)
    known = Hashes(tmp_path / "hashes.json", lambda: [file])

    known.look()

    assert Hashes(tmp_path / "hashes.json", list).of(file) == expected(file)


def test_a_stop_ends_the_reading(file: Path) -> None:
    assert hashes.digest(file, lambda: True) is None
