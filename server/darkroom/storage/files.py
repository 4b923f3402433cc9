"""Where picture bytes live: a folder, written whole or not at all."""

import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

SUBFOLDERS = tuple(f"{number:02x}" for number in range(256))
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


class Files:
    """Named byte strings in a folder, spread over 256 subfolders by a checksum of the name.

    Args:
        root: made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Store `data`, replacing what was there. On disk when this returns.

        Raises:
            OSError: the disk is full or broken; nothing is left behind under `name`.
        """
        target = self._path(name)
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
        _sync_folder(self._root)

    def read(self, name: str) -> bytes:
        """The bytes stored under `name`.

        Raises:
            FileNotFoundError: there are none.
        """
        return self._path(name).read_bytes()

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """Everything stored, in no order. What others put into the folder is passed over."""
        for subfolder, name in self._contents():
            if _is_name(name) and _subfolder(name) == subfolder:
                yield name

    def temporaries(self) -> Iterator[tuple[str, Path]]:
        """What interrupted writes left behind: the name that was written, and the file."""
        for subfolder, name in self._contents():
            found = TEMPORARY.fullmatch(name)
            if found and _is_name(found["name"]) and _subfolder(found["name"]) == subfolder:
                yield found["name"], self._root / subfolder / name

    def _contents(self) -> Iterator[tuple[str, str]]:
        """Subfolder and name of all that lies here; strings, for there may be very many."""
        for subfolder in SUBFOLDERS:
            try:
                with os.scandir(self._root / subfolder) as entries:
                    names = [entry.name for entry in entries]
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield from ((subfolder, name) for name in names)

    def move(self, name: str, other: "Files", now: float | None = None) -> bool:
        """Put a file into another folder, in place of what may be there under its name.

        Args:
            name: of the file.
            other: where to.
            now: its new age there, seconds since the epoch.

        Returns:
            Whether it was there.
        """
        target = other._path(name)
        target.parent.mkdir(exist_ok=True)
        try:
            shutil.move(self._path(name), target)  # a rename, or a copy to another disk
        except FileNotFoundError:
            return False
        now = time.time() if now is None else now
        os.utime(target, (now, now))
        return True

    def share(self, name: str, other: "Files") -> bool:
        """Have a file in another folder too: a second name of it, or on another disk a copy.

        Files are never changed in place, so neither folder notices what becomes of the other.

        Returns:
            Whether it was there.

        Raises:
            OSError: the disk is full or broken; nothing is left behind under `name`.
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
        """Make what was shared survive a power cut."""
        for name in SUBFOLDERS:
            if (self._root / name).is_dir():
                _sync_folder(self._root / name)
        _sync_folder(self._root)

    def delete_older(self, than: float) -> int:
        """Remove what was changed or moved here before a time, in seconds since the epoch.

        Returns:
            How many files that were.
        """
        old = []
        for name in self.names():
            try:
                if self._path(name).stat().st_mtime < than:
                    old.append(name)
            except FileNotFoundError:
                continue
        for name in old:
            self.delete(name)
        return len(old)

    def free_bytes(self) -> int:
        """Space left on the disk, for an ordinary user."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def _path(self, name: str) -> Path:
        # Names are our own ids. This guards against a programming error, not against callers.
        if not _is_name(name):
            raise ValueError(f"not a file name of ours: {name!r}")
        return self._root / _subfolder(name) / name


def _is_name(name: str) -> bool:
    return name.replace("-", "").replace("_", "").isalnum()


def _subfolder(name: str) -> str:
    return SUBFOLDERS[zlib.crc32(name.encode()) % len(SUBFOLDERS)]


def _sync_folder(folder: Path) -> None:
    """Make a rename in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
