"""Where picture bytes live: a folder, written whole or not at all."""

import os
import zlib
from pathlib import Path


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

    def free_bytes(self) -> int:
        """Space left on the disk, for an ordinary user."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def _path(self, name: str) -> Path:
        # Names are our own ids. This guards against a programming error, not against callers.
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"not a file name of ours: {name!r}")
        return self._root / f"{zlib.crc32(name.encode()) % 256:02x}" / name


def _sync_folder(folder: Path) -> None:
    """Make a rename in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
