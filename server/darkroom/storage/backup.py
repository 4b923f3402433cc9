"""Copies of the database, and of the images with it; each is complete or not there at all."""

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from darkroom.config import Settings
from darkroom.errors import DarkroomError
from darkroom.storage.files import FilesUnavailableError, FolderFiles, files_of, sync

COPIES_KEPT = 3  # of those that migrations make


class BackupError(DarkroomError):
    """The backup failed; nothing was left behind."""


@dataclass(frozen=True)
class BackedUp:
    """How many jobs and pictures a backup has, and how many recorded pictures had no file."""

    jobs: int
    pictures: int
    missing: int


def backup(settings: Settings, target: Path) -> BackedUp:
    """Copy a data folder's database, images, certificates and webhook key to a new folder.

    The server may be running. Images are hard-linked where the file system allows it, so that they
    take no space; those behind a URL are downloaded. Models, LoRAs and embeddings are not copied.

    Raises:
        BackupError: with the reason.
    """
    if settings.storage.database_url is not None:
        raise BackupError(
            "the database is on a server: copy it with `pg_dump`, and then the folder "
            f"{settings.images_dir}, or what is behind storage.files_url"
        )
    if not settings.database_path.is_file():
        raise BackupError(f"there is no database at {settings.database_path}")
    partial = target.with_name(f"{target.name}.partial")
    copy = settings.model_copy(update={"data_dir": partial})
    with _all_or_nothing(partial, target):
        pictures, kept = files_of(settings), FolderFiles(copy.images_dir)
        # Before the database, so that images deleted meanwhile exist for the copied records.
        early = {name for name in pictures.names() if pictures.share(name, kept)}
        jobs, recorded = _copy_records(settings.database_path, copy.database_path)
        missing = {name for name in recorded - early if not pictures.share(name, kept)}
        for name in early - recorded:
            kept.delete(name)
        kept.sync()
        if settings.webhook_secret_path.is_file():
            shutil.copy2(settings.webhook_secret_path, copy.webhook_secret_path)
            sync(copy.webhook_secret_path)
        if settings.tls_dir.is_dir():
            shutil.copytree(settings.tls_dir, copy.tls_dir)
            for path in (*copy.tls_dir.rglob("*"), copy.tls_dir):
                sync(path)
        return BackedUp(jobs, len(recorded - missing), len(missing))


@contextmanager
def _all_or_nothing(partial: Path, target: Path) -> Iterator[None]:
    """Create `partial`, and rename it to `target` at the end; delete it after an error."""
    if target.exists():
        raise BackupError(f"{target} is there already; choose another name")
    try:
        partial.mkdir(mode=0o700)  # it contains token digests and private keys
    except FileExistsError:
        raise BackupError(
            f"{partial} is there already: another backup runs, or one was killed; remove it then"
        ) from None
    except OSError as error:
        raise BackupError(f"{partial} cannot be made: {error.strerror}") from None
    try:
        yield
        _publish(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise BackupError(f"the backup was given up: {error.strerror or error}") from error
        if isinstance(error, FilesUnavailableError):
            raise BackupError(f"the backup was given up: {error}") from error
        if isinstance(error, sqlite3.Error):
            raise BackupError(f"the database cannot be copied: {error}") from error
        raise


def _copy_records(source: Path, target: Path) -> tuple[int, frozenset[str]]:
    """Copy a database in use. Returns the number of jobs, and the names of all files."""
    with _copied(source, target) as copy:
        # State of the running server.
        copy.execute("DELETE FROM workers")
        copy.execute("DELETE FROM pairing_codes")
        copy.execute("UPDATE webhooks SET sender = NULL")
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise BackupError(f"the database is damaged: {verdict}; see `darkroom doctor`")
        (jobs,) = copy.execute("SELECT count(*) FROM jobs").fetchone()
        tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master")}
        holders = [name for name in ("images", "uploads", "explanations") if name in tables]
        found = " UNION ".join(f"SELECT id FROM {name}" for name in holders)
        names = copy.execute(found).fetchall()
    return jobs, frozenset(name for (name,) in names)


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[sqlite3.Connection]:
    """Context with a copy of a database in use. The copy is one file, synced at the end."""
    with (
        closing(sqlite3.connect(source, timeout=30)) as reading,
        closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        reading.backup(copy)  # in one step: a consistent view that blocks no writer
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        yield copy
    sync(target)


def _publish(partial: Path, target: Path) -> None:
    """Give a complete file or folder its name."""
    sync(partial)
    partial.rename(target)
    sync(target.parent)


# --- before migrations ---------------------------------------------------------------------


def copy_before_migration(database: Path, schema: str) -> Path:
    """Copy a database in use beside itself before its schema changes. Deletes the oldest copies.

    Returns the copy: one file that can take the database's place. Its name has the schema's
    revision and the local time.

    Raises:
        BackupError: for example for lack of space. Nothing was changed.
    """
    when = time.strftime("%Y%m%d-%H%M%S")
    target = database.with_name(f"{database.stem}-{schema}-{when}{database.suffix}")
    partial = target.with_name(f"{target.name}.partial")
    wanted = 2 * database.stat().st_size  # the copy, and the migration's log
    free = shutil.disk_usage(database.parent).free
    try:
        if free < wanted:
            raise OSError(f"{wanted} bytes of space are needed, and {free} are free")
        partial.touch(0o600)  # it holds prompts and tokens' hashes
        with _copied(database, partial):
            pass
        _publish(partial, target)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise BackupError(
            f"{database} has to be migrated, and the copy that is made before cannot be: {error}; "
            "nothing was changed"
        ) from error
    older = [path for path, _ in migration_copies(database) if path != target]
    for old in older[: -(COPIES_KEPT - 1)]:  # whatever the clock says, the new one stays
        old.unlink()
    return target


def migration_copies(database: Path) -> list[tuple[Path, str]]:
    """The copies of a database that migrations made, and their schemas, oldest first."""
    name = re.compile(
        rf"{re.escape(database.stem)}-(\w+)-(\d{{8}}-\d{{6}}){re.escape(database.suffix)}"
    )
    found = [(path, name.fullmatch(path.name)) for path in database.parent.iterdir()]
    dated = sorted((match[2], path, match[1]) for path, match in found if match)
    return [(path, schema) for _, path, schema in dated]
