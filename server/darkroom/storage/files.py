"""Named byte strings: in a folder here, or behind a URL in `remote_files`. And key files."""

import os
import re
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from darkroom.config import Settings
from darkroom.errors import DarkroomError

SUBFOLDERS = tuple(f"{number:02x}" for number in range(256))
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")
CLOCK = "clock"  # the name of an empty file that shows the time of its place


class FilesUnavailableError(DarkroomError):
    """The place of files cannot be used at the moment; a later try may succeed.

    It is not known whether a write was made. The message has no part of the place's URL.

    Attributes:
        advice: what the owner has to do if it does not pass; empty if waiting may help.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


class Stored(NamedTuple):
    """A stored file: its name, and when it was written or moved, by the clock of its place."""

    name: str
    changed_at: float


class Files(ABC):
    """Named byte strings. They are spread over 256 parts by a checksum of the name.

    Methods raise FilesUnavailableError while their place cannot be reached, and OSError if a disk
    is full or broken.
    """

    @abstractmethod
    def write(self, name: str, data: bytes, may_replace: Callable[[], None] | None = None) -> None:
        """Store `data`, replacing an earlier file. It is safe when this returns.

        Args:
            may_replace: called before a file of this name is replaced, where others write too; it
                raises if the caller may not replace it. A folder does not ask.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes stored under `name`. Raises FileNotFoundError if there are none."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""

    @abstractmethod
    def part(self, number: int) -> Iterator[Stored]:
        """The files of a part, 0 to 255, in no order. Files of other origin are skipped."""

    @abstractmethod
    def delete_half_written(self, number: int, than: float) -> int:
        """Delete what interrupted writes left in a part before `than`; their number."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Free space in bytes; None if it is not known."""

    def check(self) -> None:  # noqa: B027
        """Check that all of the above can be done; a folder has other checks."""

    def names(self) -> Iterator[str]:
        """The names of all stored files, in no order."""
        for number in range(len(SUBFOLDERS)):
            for stored in self.part(number):
                yield stored.name

    def share(self, name: str, other: "Files") -> bool:
        """Copy a file to another place. Returns whether it existed."""
        try:
            other.write(name, self.read(name))
        except FileNotFoundError:
            return False
        return True

    def move(self, name: str, other: "Files", now: float | None = None) -> bool:  # noqa: ARG002
        """Move a file to another place, replacing a file of the same name there.

        Args:
            now: when it was moved, for places where that can be set.

        Returns:
            Whether the file existed.
        """
        found = self.share(name, other)
        self.delete(name)
        return found

    def delete_older(self, than: float) -> int:
        """Delete files written or moved here before `than`, in seconds since the epoch.

        Returns their number.
        """
        deleted = 0
        for number in range(len(SUBFOLDERS)):
            for stored in list(self.part(number)):
                if stored.changed_at < than:
                    self.delete(stored.name)
                    deleted += 1
        return deleted

    def now(self) -> float:
        """Seconds since the epoch, by the clock that `Stored.changed_at` is of."""
        self.write(CLOCK, b"")
        return next(found.changed_at for found in self.part(part_of(CLOCK)) if found.name == CLOCK)


def files_of(settings: Settings) -> Files:
    """Where pictures, uploads and explanations are."""
    return _files(settings, settings.images_dir)


def orphans_of(settings: Settings) -> Files:
    """Where files are put that no record names."""
    return _files(settings, settings.orphans_dir)


def check_place(settings: Settings) -> None:
    """Check that files can be written, read, listed and deleted, where they are behind a URL.

    Raises:
        FilesUnavailableError: they cannot.
    """
    files_of(settings).check()


def _files(settings: Settings, folder: Path) -> Files:
    url = settings.storage.files_url
    if url is None:
        return FolderFiles(folder)
    from darkroom.storage.remote_files import RemoteFiles  # fsspec is not for those without a URL

    return RemoteFiles(url.get_secret_value(), folder.name, settings.storage.files_options)


class FolderFiles(Files):
    """Files in the folder `root`, which is made if it is not there. They never change in place.

    A write is complete on disk, or leaves nothing behind.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(
        self,
        name: str,
        data: bytes,
        may_replace: Callable[[], None] | None = None,  # noqa: ARG002
    ) -> None:
        target = self._path(name)
        target.parent.mkdir(exist_ok=True)
        write_file(target, data)
        sync(target.parent)
        sync(self._root)

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        # Without `part`, which asks the disk when each file was changed.
        for subfolder, name in self._contents(SUBFOLDERS):
            if _is_name(name) and _subfolder(name) == subfolder:
                yield name

    def part(self, number: int) -> Iterator[Stored]:
        for subfolder, name in self._contents(SUBFOLDERS[number : number + 1]):
            if _is_name(name) and _subfolder(name) == subfolder:
                with suppress(FileNotFoundError):
                    yield Stored(name, self._path(name).stat().st_mtime)

    def temporaries(self) -> Iterator[tuple[str, Path]]:
        """Files left by interrupted writes: the name that was being written, and the path."""
        for subfolder, name in self._contents(SUBFOLDERS):
            found = TEMPORARY.fullmatch(name)
            if found and _is_name(found["name"]) and _subfolder(found["name"]) == subfolder:
                yield found["name"], self._root / subfolder / name

    def delete_half_written(self, number: int, than: float) -> int:
        deleted = 0
        for _, name in self._contents(SUBFOLDERS[number : number + 1]):
            path = self._root / SUBFOLDERS[number] / name
            with suppress(FileNotFoundError):
                if TEMPORARY.fullmatch(name) and path.stat().st_mtime < than:
                    path.unlink()
                    deleted += 1
        return deleted

    def _contents(self, subfolders: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Subfolder and name of every file; strings, because there may be very many."""
        for subfolder in subfolders:
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._root / subfolder) as entries,
            ):
                yield from [(subfolder, entry.name) for entry in entries]

    def move(self, name: str, other: Files, now: float | None = None) -> bool:
        if not isinstance(other, FolderFiles):
            return super().move(name, other)
        target = other._path(name)
        target.parent.mkdir(exist_ok=True)
        try:
            shutil.move(self._path(name), target)  # a rename, or a copy to another disk
        except FileNotFoundError:
            return False
        os.utime(target, None if now is None else (now, now))
        return True

    def share(self, name: str, other: Files) -> bool:
        """Hard-link a file into another folder; copy it if that is on another disk, or elsewhere.

        Returns whether the file existed.
        """
        if not isinstance(other, FolderFiles):
            return super().share(name, other)
        source, target = self._path(name), other._path(name)
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return False
        except OSError:  # another disk, or one that knows no links
            return super().share(name, other)
        return True

    def sync(self) -> None:
        """Sync the folders, so that files added by `share` survive a power cut."""
        for name in SUBFOLDERS:
            if (self._root / name).is_dir():
                sync(self._root / name)
        sync(self._root)

    def free_bytes(self) -> int:
        """Free disk space in bytes, as available to an unprivileged user."""
        return shutil.disk_usage(self._root).free

    def _path(self, name: str) -> Path:
        # Names are ids made by the server; this catches programming errors.
        return self._root / checked(name)


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


def checked(name: str) -> str:
    """A name behind that of its part. ValueError if it is none: names are made by the server."""
    if not _is_name(name):
        raise ValueError(f"not a file name of ours: {name!r}")
    return f"{_subfolder(name)}/{name}"


def part_of(name: str) -> int:
    """In which part a file is."""
    return zlib.crc32(name.encode()) % len(SUBFOLDERS)


def _is_name(name: str) -> bool:
    return name.replace("-", "").replace("_", "").isalnum()


def _subfolder(name: str) -> str:
    return SUBFOLDERS[zlib.crc32(name.encode()) % len(SUBFOLDERS)]
