"""The hashes by which people match models and LoRAs, made in the background and kept in a file.

They are the SHA-256 of the file, and AutoV2, its first ten digits, as A1111 and Civitai show it.
"""

import json
import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

import structlog

log = structlog.get_logger()

CHUNK_BYTES = 2**20
AUTO_V2 = 10  # digits
LOOK_EVERY_S = 30.0


def digest(path: Path, is_stopped: Callable[[], bool] = lambda: False) -> str | None:
    """SHA-256 of a file, hexadecimal; None if it was stopped. OSError if it cannot be read."""
    found = sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            if is_stopped():
                return None
            found.update(chunk)
    return found.hexdigest()


class Hashes:
    """The SHA-256 of files, as far as they are known. Thread-safe.

    Args:
        store: the file that keeps them, by path, size and time of change.
        files: which files to hash; called anew in every look.
    """

    def __init__(self, store: Path, files: Callable[[], Iterable[Path]]) -> None:
        self._store = store
        self._files = files
        self._known: dict[str, str] = self._read()
        self._stopped = threading.Event()

    def of(self, path: Path) -> str | None:
        """SHA-256 of a file as it is now; None if it is not made yet. Reads no file."""
        try:
            return self._known.get(_key(path))
        except OSError:
            return None

    def start(self) -> None:
        """Begin to hash what is not known yet, in a thread that does not keep the process alive."""
        threading.Thread(target=self._run, name="hashes", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

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
        for path in self._files():
            try:
                key = _key(path)
                current.add(key)
                if key in self._known:
                    continue
                found = digest(path, self._stopped.is_set)
                if found is None:
                    return
                if _key(path) == key:  # else it was written meanwhile
                    self._known = {**self._known, key: found}
                    self._write()
            except OSError as error:
                log.warning("a file was not hashed", file=path.name, reason=str(error))
        gone = self._known.keys() - current
        if gone:
            self._known = {key: self._known[key] for key in current & self._known.keys()}
            self._write()

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


def _key(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {path}"
