"""A copy of everything that was made and asked for, while the server runs: whole or not at all."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from darkroom.config import Settings
from darkroom.storage.files import Files


class BackupError(Exception):
    """There is no backup; nothing was left behind."""


@dataclass(frozen=True)
class BackedUp:
    """What the copy holds.

    Attributes:
        jobs: in it.
        pictures: uploads among them.
        missing: pictures that are recorded, but whose files were not there.
    """

    jobs: int
    pictures: int
    missing: int


def backup(settings: Settings, target: Path) -> BackedUp:
    """Copy a data folder's database and pictures, and what its certificates and webhooks need.

    Pictures are hard links where the file system allows, so that they take no space; models, LoRAs
    and embeddings are the owner's, and stay out.

    Args:
        settings: of a server, running or not.
        target: a data folder that is not there yet.

    Raises:
        BackupError: says why.
    """
    if not settings.database_path.is_file():
        raise BackupError(f"there is no database at {settings.database_path}")
    partial = target.with_name(f"{target.name}.partial")
    copy = settings.model_copy(update={"data_dir": partial})
    with _whole_or_not_at_all(partial, target):
        pictures, kept = Files(settings.images_dir), Files(copy.images_dir)
        # Before the database: what is deleted meanwhile is there for the copy that knows it.
        early = {name for name in pictures.names() if pictures.share(name, kept)}
        jobs, recorded = _copy_database(settings.database_path, copy.database_path)
        missing = {name for name in recorded - early if not pictures.share(name, kept)}
        for name in early - recorded:
            kept.delete(name)
        kept.sync()
        if settings.webhook_secret_path.is_file():  # by which receivers know this server
            shutil.copy2(settings.webhook_secret_path, copy.webhook_secret_path)
            _sync(copy.webhook_secret_path)
        if settings.tls_dir.is_dir():
            shutil.copytree(settings.tls_dir, copy.tls_dir)
            for path in (*copy.tls_dir.rglob("*"), copy.tls_dir):
                _sync(path)
        return BackedUp(jobs, len(recorded - missing), len(missing))


@contextmanager
def _whole_or_not_at_all(partial: Path, target: Path) -> Iterator[None]:
    if target.exists():
        raise BackupError(f"{target} is there already; choose another name")
    try:
        partial.mkdir(mode=0o700)  # tokens' hashes and private keys lie in it
    except FileExistsError:
        raise BackupError(
            f"{partial} is there already: another backup runs, or one was killed; remove it then"
        ) from None
    except OSError as error:
        raise BackupError(f"{partial} cannot be made: {error.strerror}") from None
    try:
        yield
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise BackupError(f"the backup was given up: {error.strerror or error}") from error
        if isinstance(error, sqlite3.Error):
            raise BackupError(f"the database cannot be copied: {error}") from error
        raise


def _copy_database(source: Path, target: Path) -> tuple[int, frozenset[str]]:
    """Copy a database that others write to; the number of jobs, and the names of all pictures."""
    with (
        closing(sqlite3.connect(source, timeout=30)) as reading,
        closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        reading.backup(copy)  # in one step: it sees one moment, and keeps no writer waiting
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        # What is true of the running server only.
        copy.execute("DELETE FROM workers")
        copy.execute("DELETE FROM pairing_codes")
        copy.execute("UPDATE webhooks SET sender = NULL")
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise BackupError(f"the database is damaged: {verdict}; see `darkroom doctor`")
        (jobs,) = copy.execute("SELECT count(*) FROM jobs").fetchone()
        names = copy.execute("SELECT id FROM images UNION SELECT id FROM uploads").fetchall()
    _sync(target)
    return jobs, frozenset(name for (name,) in names)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
