"""Files behind a URL that fsspec knows, such as s3://BUCKET/PREFIX. Several machines may write."""

import errno
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.core import url_to_fs

from darkroom.storage.files import (
    SUBFOLDERS,
    Files,
    FilesUnavailableError,
    Stored,
    checked,
    part_of,
)

log = structlog.get_logger()

CONNECT_S, READ_S = 3, 10
TRIES = 2
BYTES_PER_S = 2**19  # that a file is given time for at least
# A file is one PUT, which S3 shows as a whole or not at all: the largest picture has 50 MB.
S3: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "retries": {"max_attempts": TRIES - 1},
        "max_pool_connections": 32,
    },
    "max_concurrency": 1,  # a file is read by one request, without one for its size before
}
# By the scheme of the URL.
DEFAULTS: dict[str, dict[str, Any]] = {
    "s3": S3,
    "s3a": S3,
    "file": {"auto_mkdir": True},
    "local": {"auto_mkdir": True},
}
# Schemes whose file systems can write a file only if it is not there.
CREATING = ("s3", "s3a", "file", "local", "memory")
# What file systems call the time of the last change.
CHANGED = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
NO_BUCKET = "NoSuchBucket"
EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")
# What botocore raises where no credentials are found, and what S3 answers to wrong ones.
REFUSED = (
    "AccessDenied",
    "403",
    "Forbidden",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionError",
    "SignatureDoesNotMatch",
)
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.files_options, to an account that "
    "may list, read, write and delete there"
)
BUCKET = "make the bucket, or name another one in storage.files_url"


class RemoteFiles(Files):
    """Files in one `folder` of the place that a URL names.

    Args:
        url: one that fsspec knows.
        folder: in which the same subfolders are as in a folder on disk.
        options: of that file system; they win over ours.
    """

    def __init__(self, url: str, folder: str, options: Mapping[str, Any]) -> None:
        scheme = url.partition("://")[0]
        chosen: dict[str, Any] = {
            "use_listings_cache": False,
            **DEFAULTS.get(scheme, {}),
            **options,
        }
        if "config_kwargs" in options:
            chosen["config_kwargs"] = {**S3["config_kwargs"], **options["config_kwargs"]}
        self._fs: AbstractFileSystem
        self._fs, root = url_to_fs(url, **chosen)
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1  # botocore tries again
        self._above = root.rstrip("/")
        self._root = f"{self._above}/{folder}"
        waits = {**S3["config_kwargs"], **chosen.get("config_kwargs", {})}
        self._patience_s = TRIES * float(waits["connect_timeout"] + waits["read_timeout"])
        self._creates = scheme in CREATING
        self._gate = Gate()

    def write(self, name: str, data: bytes, may_replace: Callable[[], None] | None = None) -> None:
        path = self._path(name)
        if may_replace is None:
            self._put(path, data)
            return
        # Another worker may have taken the job over and stored this picture already. So a first
        # write replaces nothing, and a second one only what was there when the lease was checked.
        while not self._create(path, data):
            with self._reached():
                tag = _tag(self._call("info", path))
            may_replace()
            if self._replace(path, data, tag):
                return

    def read(self, name: str) -> bytes:
        path = self._path(name)
        with self._reached():
            data: bytes = self._call("cat_file", path)
            return data

    def delete(self, name: str) -> None:
        path = self._path(name)
        with self._reached(), suppress(FileNotFoundError):
            self._call("rm_file", path)

    def part(self, number: int) -> Iterator[Stored]:
        subfolder = SUBFOLDERS[number]
        with self._reached():
            found = self._call("find", f"{self._root}/{subfolder}", detail=True)
        for path, about in found.items():
            name = path.rpartition("/")[2]
            with suppress(ValueError):
                if checked(name) == f"{subfolder}/{name}":
                    yield Stored(name, _changed_at(about))

    def names(self) -> Iterator[str]:
        for number in self._parts():
            for stored in self.part(number):
                yield stored.name

    def delete_older(self, than: float) -> int:
        old = [
            stored.name
            for number in self._parts()
            for stored in self.part(number)
            if stored.changed_at < than
        ]
        for name in old:
            self.delete(name)
        return len(old)

    def delete_half_written(self, number: int, than: float) -> int:  # noqa: ARG002
        return 0  # a PUT that breaks off leaves nothing

    def move(self, name: str, other: Files, now: float | None = None) -> bool:
        if not isinstance(other, RemoteFiles) or other._fs is not self._fs:
            return super().move(name, other, now)
        source, target = self._path(name), other._path(name)
        try:
            with self._reached():
                self._call("cp_file", source, target)  # the bytes do not come here
        except FileNotFoundError:
            return False
        except NotImplementedError:
            return super().move(name, other, now)
        self.delete(name)
        return True

    def free_bytes(self) -> int | None:
        return None

    def check(self) -> None:
        """Write, read, list and delete a file.

        Raises:
            FilesUnavailableError: that cannot be done; `advice` says what to do.
        """
        name, data = f"check{secrets.token_hex(8)}", b"darkroom"
        self.write(name, data)
        if self.read(name) != data:
            raise FilesUnavailableError("what is written there is not what is read")
        if all(stored.name != name for stored in self.part(part_of(name))):
            raise FilesUnavailableError("what is written there is not listed")
        self.delete(name)

    def _call(self, name: str, *arguments: Any, **how: Any) -> Any:
        """Call a method of the file system, and give it up if it takes too long.

        botocore has no limit for the time in which a server may say that it wants a file's bytes.
        """
        if not isinstance(self._fs, AsyncFileSystem):
            return getattr(self._fs, name)(*arguments, **how)
        sent = sum(len(each) for each in arguments if isinstance(each, bytes))
        return sync(
            self._fs.loop,
            getattr(self._fs, f"_{name}"),
            *arguments,
            timeout=self._patience_s + sent / BYTES_PER_S,
            **how,
        )

    def _parts(self) -> list[int]:
        """The numbers of those parts that there are."""
        with self._reached():
            try:
                found = self._call("ls", self._root, detail=False)
            except FileNotFoundError as error:
                if _code(error) == NO_BUCKET:
                    raise
                return []
        names = {path.rstrip("/").rpartition("/")[2] for path in found}
        return [number for number, name in enumerate(SUBFOLDERS) if name in names]

    def _put(self, path: str, data: bytes, **how: Any) -> None:
        """Write a file, and see that all of it arrived."""
        with self._reached():
            try:
                answer = self._call("pipe_file", path, data, **how)
            except FileNotFoundError as error:
                if _code(error) == NO_BUCKET:
                    raise
                self._make_folders(path)
                answer = self._call("pipe_file", path, data, **how)
            # S3 has compared the checksum that came with the bytes; others are asked.
            if not isinstance(answer, Mapping) and self._call("size", path) != len(data):
                raise FilesUnavailableError("a file was not written completely")

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file that is not there. Returns whether it was not."""
        if not self._creates:
            with self._reached():
                there = self._call("exists", path)
            if not there:
                self._put(path, data)
            return not there
        try:
            self._put(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def _replace(self, path: str, data: bytes, tag: str | None) -> bool:
        """Write a file unless it has changed, where that can be asked. Returns whether it did."""
        try:
            self._put(path, data, **({} if tag is None else {"IfMatch": tag}))
        except FileExistsError:
            return False
        return True

    def _make_folders(self, path: str) -> None:
        """Make the folders of a path, on file systems that have some."""
        for folder in (self._above, self._root, path.rpartition("/")[0]):
            with suppress(FileExistsError):
                self._call("mkdir", folder, create_parents=False)

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked(name)}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raise FilesUnavailableError for what is wrong with the place, not with one file.

        The libraries' messages are left out, because they may have passwords of the URL.
        """
        with self._gate.passing():
            try:
                yield
            except (FilesUnavailableError, FileExistsError, NotImplementedError):
                raise
            except Exception as error:
                code = _code(error)
                if code in EXISTS:
                    raise FileExistsError from None
                if isinstance(error, FileNotFoundError) and code != NO_BUCKET:
                    raise
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise _unavailable(code) from None


class Gate:
    """Lets one caller at a time try while a place is away, so that the others need not wait."""

    def __init__(self) -> None:
        self._away: FilesUnavailableError | None = None
        self._trying = threading.Lock()

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Context of one call.

        Raises:
            FilesUnavailableError: the place was away the last time, and another caller tries now.
        """
        away = self._away
        if away is None:
            with self._noted():
                yield
            return
        if not self._trying.acquire(blocking=False):
            raise FilesUnavailableError(str(away), away.advice)
        try:
            with self._noted():
                yield
        finally:
            self._trying.release()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except FilesUnavailableError as error:
            if self._away is None:
                log.warning("the place of files cannot be used", reason=str(error))
            self._away = error
            raise
        except Exception:  # about one file
            self._back()
            raise
        self._back()

    def _back(self) -> None:
        if self._away is not None:
            log.info("the place of files can be used again")
            self._away = None


def _unavailable(code: str) -> FilesUnavailableError:
    if code == NO_BUCKET:
        return FilesUnavailableError("the bucket for files does not exist", BUCKET)
    if code in REFUSED:
        reason = f"the place of files refuses the server ({code})"
        return FilesUnavailableError(reason, CREDENTIALS)
    return FilesUnavailableError(f"the place of files cannot be reached ({code})")


def _code(error: BaseException) -> str:
    """S3's code of an error, else the name of its type."""
    for found in (error, error.__cause__):
        answer = getattr(found, "response", None)
        if isinstance(answer, Mapping):
            return str(answer.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _tag(about: Mapping[str, Any]) -> str | None:
    """S3's ETag of a file."""
    tag = about.get("ETag")
    return None if tag is None else str(tag)


def _changed_at(about: Mapping[str, Any]) -> float:
    """When a file was changed, in seconds since the epoch; now if its place does not say."""
    for name in CHANGED:
        found = about.get(name)
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        if isinstance(found, int | float):
            return float(found)
        if isinstance(found, str):
            with suppress(ValueError):
                return datetime.fromisoformat(found).timestamp()
    return datetime.now(UTC).timestamp()
