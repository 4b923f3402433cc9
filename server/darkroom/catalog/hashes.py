"""The hashes by which people match models and LoRAs, made in the background and kept in a file.

    sha256   of the file
    AutoV2   its first ten digits; A1111's `Model hash`
    AutoV3   the first twelve digits of the SHA-256 of a file without its header, which holds the
             metadata; in A1111's `Lora hashes`

A model that is a folder has none: people match files by them, and a folder has several.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from darkroom.catalog.weight_files import MAX_HEADER_BYTES

log = structlog.get_logger()

CHUNK_BYTES = 2**20
AUTO_V2, AUTO_V3 = 10, 12  # digits
LOOK_EVERY_S = 30.0

DIGITS = re.compile(r"[0-9a-fA-F]{10,64}")  # of a SHA-256, all or the first


def digest(
    path: Path, is_stopped: Callable[[], bool] = lambda: False, *, of_tensors: bool = False
) -> str | None:
    """SHA-256 of a file, hexadecimal; None if it was stopped. OSError if it cannot be read.

    `of_tensors` leaves out the header of a safetensors file.
    """
    found = sha256()
    with path.open("rb", buffering=0) as file:
        if of_tensors:
            file.seek(8 + min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES))
        while chunk := file.read(CHUNK_BYTES):
            if is_stopped():
                return None
            found.update(chunk)
    return found.hexdigest()


class HasPath(Protocol):
    """What is in a file."""

    @property
    def path(self) -> Path: ...


Hashed = TypeVar("Hashed", bound=HasPath)


class Hashes:
    """The SHA-256 of files, as far as they are known. Thread-safe.

    Args:
        store: the file that keeps them, by path, size and time of change.
        files: which files to hash; called anew in every look.
        loras: those of which AutoV3 is wanted too.
    """

    def __init__(
        self,
        store: Path,
        files: Callable[[], Iterable[Path]],
        loras: Callable[[], Iterable[Path]] = tuple,
    ) -> None:
        self._store = store
        self._files = files
        self._loras = loras
        self._known: dict[str, str] = self._read()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hashes", daemon=True)

    def of(self, path: Path) -> str | None:
        """SHA-256 of a file as it is now; None if it is not made yet. Reads no file."""
        try:
            return self._known.get(_key(path))
        except OSError:
            return None

    def find(self, digits: str, entries: Iterable[Hashed]) -> Hashed | None:
        """The first entry whose file has this SHA-256, of which AutoV2 or more is given."""
        if not DIGITS.fullmatch(digits):
            return None
        found = ((entry, self.of(entry.path)) for entry in entries)
        return next((entry for entry, has in found if has and has.startswith(digits.lower())), None)

    def find_lora(self, digits: str, entries: Iterable[Hashed]) -> Hashed | None:
        """The first LoRA with this AutoV3, or SHA-256 of which AutoV2 or more is given."""
        if not DIGITS.fullmatch(digits):
            return None
        tried = list(entries)
        called = (entry for entry in tried if self.auto_v3(entry.path) == digits.lower())
        return next(called, None) or self.find(digits, tried)

    def auto_v3(self, path: Path) -> str | None:
        """AutoV3 of a LoRA's file, as `of`."""
        try:
            found = self._known.get(_key(path, of_tensors=True))
        except OSError:
            return None
        return found and found[:AUTO_V3]

    def start(self) -> None:
        """Begin to hash what is not known yet, in a thread that does not keep the process alive."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, after the block of a file that is read now. Needs no `start`.

        A process that ends while a thread of it imports numpy may be aborted.
        """
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception:
                log.exception("hashes were not made")
            self._stopped.wait(LOOK_EVERY_S)

    def look(self) -> None:
        """Hash the files that are not known yet, one after the other."""
        current: set[str] = set()
        for path, of_tensors in self._wanted():
            try:
                key = _key(path, of_tensors=of_tensors)
                current.add(key)
                if key in self._known:
                    continue
                found = digest(path, self._stopped.is_set, of_tensors=of_tensors)
                if found is None:
                    return
                if _key(path, of_tensors=of_tensors) == key:  # else it was written meanwhile
                    self._known = {**self._known, key: found}
                    self._write()
            except OSError as error:
                log.warning("a file was not hashed", file=path.name, reason=str(error))
        gone = self._known.keys() - current
        if gone:
            self._known = {key: self._known[key] for key in current & self._known.keys()}
            self._write()

    def _wanted(self) -> Iterator[tuple[Path, bool]]:
        """What to hash: a file, and whether of its tensors alone."""
        for path in self._files():
            yield path, False
        for path in self._loras():
            yield path, False
            yield path, True

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self._store.read_text(encoding="utf-8"))
            return {key: value for key, value in kept.items() if isinstance(value, str)}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}  # they are made again

    def _write(self) -> None:
        """Replace the file at once, so that no half of it is ever read."""
        new = self._store.with_name(f"{self._store.name}.new")
        new.write_text(json.dumps(self._known), encoding="utf-8")
        new.replace(self._store)


def _key(path: Path, *, of_tensors: bool = False) -> str:
    stat = path.stat()
    return f"{'tensors ' if of_tensors else ''}{stat.st_size} {stat.st_mtime_ns} {path}"
