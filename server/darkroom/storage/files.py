"""Image files in a folder, and key files. A write is complete on disk, or leaves nothing."""

import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SUBFOLDERS = tuple(f"{number:02x}" for number in range(256))
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


class Files:
    """Named byte strings in the folder `root`, which is made if it is not there.

    They are spread over 256 subfolders by a checksum of the name, and never changed in place.
    Methods that write raise OSError if the disk is full or broken; nothing is left behind then.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Store `data`, replacing an earlier file. It is on disk when this returns."""
        target = self._path(name)
        target.parent.mkdir(exist_ok=True)
        write_file(target, data)
        sync(target.parent)
        sync(self._root)

    def read(self, name: str) -> bytes:
        """The bytes stored under `name`. Raises FileNotFoundError if there are none."""
        return self._path(name).read_bytes()

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """The names of all stored files, in no order. Files of other origin are skipped."""
        for subfolder, name in self._contents():
            if _is_name(name) and _subfolder(name) == subfolder:
                yield name

    def temporaries(self) -> Iterator[tuple[str, Path]]:
        """Files left by interrupted writes: the name that was being written, and the path."""
        for subfolder, name in self._contents():
            found = TEMPORARY.fullmatch(name)
            if found and _is_name(found["name"]) and _subfolder(found["name"]) == subfolder:
                yield found["name"], self._root / subfolder / name

    def _contents(self) -> Iterator[tuple[str, str]]:
        """Subfolder and name of every file; strings, because there may be very many."""
        for subfolder in SUBFOLDERS:
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._root / subfolder) as entries,
            ):
                yield from [(subfolder, entry.name) for entry in entries]

    def move(self, name: str, other: "Files", now: float | None = None) -> bool:
        """Move a file to another folder, replacing a file of the same name there.

        Its modification time becomes `now`, in seconds since the epoch; the current time if None.
        Returns whether the file existed.
        """
        target = other._path(name)
        target.parent.mkdir(exist_ok=True)
        try:
            shutil.move(self._path(name), target)  # a rename, or a copy to another disk
        except FileNotFoundError:
            return False
        os.utime(target, None if now is None else (now, now))
        return True

    def share(self, name: str, other: "Files") -> bool:
        """Hard-link a file into another folder; copy it if that folder is on another disk.

        Returns whether the file existed.
        """
        source, target = self._path(name), other._path(name)
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return False
        except OSError:  # another disk, or one that knows no links
            try:
                other.write(name, source.read_bytes())
            except FileNotFoundError:
                return False
        return True

    def sync(self) -> None:
        """Sync the folders, so that files added by `share` survive a power cut."""
        for name in SUBFOLDERS:
            if (self._root / name).is_dir():
                sync(self._root / name)
        sync(self._root)

    def delete_older(self, than: float) -> int:
        """Delete files modified or moved here before `than`, in seconds since the epoch.

        Returns their number.
        """
        deleted = 0
        for name in self.names():
            with suppress(FileNotFoundError):
                if self._path(name).stat().st_mtime < than:
                    self._path(name).unlink()
                    deleted += 1
        return deleted

    def free_bytes(self) -> int:
        """Free disk space in bytes, as available to an unprivileged user."""
        return shutil.disk_usage(self._root).free

    def _path(self, name: str) -> Path:
        # Names are ids made by the server; this catches programming errors.
        if not _is_name(name):
            raise ValueError(f"not a file name of ours: {name!r}")
        return self._root / _subfolder(name) / name


def write_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file completely or not at all, with permissions from `mode` and the umask.

    Raises OSError if the disk is full or broken.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_key(path: Path, key: bytes) -> None:
    """Write a secret key as `write_file` does, readable by this user only."""
    write_file(path, key, 0o600)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with the names in it, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_name(name: str) -> bool:
    return name.replace("-", "").replace("_", "").isalnum()


def _subfolder(name: str) -> str:
    return SUBFOLDERS[zlib.crc32(name.encode()) % len(SUBFOLDERS)]
