"""Whether the data folder can be used: who may write to it, and the kind of its file system."""

import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from filelock import FileLock

from darkroom.config import Settings
from darkroom.errors import DarkroomError

MOUNTS = Path("/proc/self/mountinfo")  # Linux; proc_pid_mountinfo(5)
# Kinds of file systems whose files another machine may change.
NETWORK = {
    **dict.fromkeys(("nfs", "nfs4"), "NFS"),
    **dict.fromkeys(("cifs", "smb3", "smbfs"), "SMB"),
    "9p": "9P",
    "ceph": "Ceph",
    "fuse.sshfs": "SSHFS",
    "fuse.glusterfs": "GlusterFS",
}
KEEP_LOCAL = (
    "keep the data folder on a disk of this machine, where SQLite's log works; its folders images "
    "and models may be links to the share, or mounted from it"
)


class NotWritableError(DarkroomError, PermissionError):
    """A file or folder of the server cannot be written; `advice` says what to do."""

    def __init__(self, path: Path) -> None:
        user, owner = os.geteuid(), path.stat().st_uid
        self.detail = f"{path} belongs to user {owner} and cannot be written by user {user}"
        self.advice = (
            f"give user {user} the data folder with `chown -R {user} FOLDER`, by the folder's path "
            "on the machine itself if this is a container, or run the server as its owner"
        )
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            self.detail = f"{path} is on a file system that is mounted read-only"
            self.advice = "mount it for writing, or choose another --data-dir"
        elif user == owner:
            self.advice = f"allow it with `chmod u+rwX {path}`"
        super().__init__(f"{self.detail}: {self.advice}")


def identity(settings: Settings) -> str:
    """An id that all processes with this data folder have, and none with another.

    It is empty if the database is in the folder: then all that share one share the other.
    """
    if settings.storage.database_url is None:
        return ""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    path = settings.folder_id_path
    with FileLock(path.with_suffix(".lock")):
        if not path.exists() or not path.read_text().strip():
            path.write_text(secrets.token_hex(16))
        return path.read_text().strip()


def check_writable(paths: Iterable[Path]) -> None:
    """Check that this user may write to those of the files and folders that are there.

    Raises:
        NotWritableError: one cannot be written.
    """
    for path in paths:
        with suppress(FileNotFoundError):  # gone since it was listed
            wanted = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
            if path.exists() and not os.access(path, wanted):
                raise NotWritableError(path)


def check(settings: Settings) -> None:
    """Check that all that the server writes to is writable, before it draws what it cannot store.

    Raises:
        NotWritableError: something is not, such as a folder that Docker made as root.
    """
    check_writable([settings.data_dir])
    written = [settings.images_dir, settings.orphans_dir, settings.tls_dir]
    written += [settings.address_path, *settings.data_dir.glob("*.pulse")]
    written += settings.data_dir.glob("*.lock")
    written += settings.data_dir.glob(f"{settings.database_path.stem}.*")
    for folder in (settings.images_dir, settings.orphans_dir):
        check_writable([folder])
        written += folder.glob("*/")
    check_writable(written)


def concerns(settings: Settings) -> Iterator[tuple[str, str]]:
    """What makes the database unsafe where it is, and what to do about each."""
    if settings.storage.database_url is not None:
        return  # on a server
    kind = network_file_system(settings.data_dir)
    if kind is not None:
        detail = (
            f"{settings.data_dir} is on a network share ({kind}), where the database may be lost"
        )
        yield detail, KEEP_LOCAL
    if settings.database_path.exists():
        with closing(sqlite3.connect(settings.database_path)) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            detail = f"{settings.database_path} is in SQLite's mode {mode}, not in its WAL mode"
            yield detail, KEEP_LOCAL


def network_file_system(path: Path) -> str | None:
    """What kind of network file system a path is on; None if it is on none, or not known."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    found, depth = "", -1
    for line in lines:
        place, _, device = line.partition(" - ")
        folder = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place.split()[4]))
        # Of several mounts on one folder the last one is seen.
        if path.resolve().is_relative_to(folder) and len(folder.parts) >= depth:
            found, depth = device.split()[0], len(folder.parts)
    return NETWORK.get(found)
