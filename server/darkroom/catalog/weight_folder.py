"""A folder of single weight files, each described by its header: LoRAs, embeddings, upscalers."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from darkroom.catalog import reading
from darkroom.catalog.reading import Header
from darkroom.responses import BrokenFile

ENDING = ".safetensors"
PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
PICKLE = "is a pickle, which can run programs when it is opened; convert it to safetensors"

Entry = TypeVar("Entry")


def why_not(
    name: str, names: Iterable[str], broken: Iterable[BrokenFile], what: str, route: str
) -> str:
    """The message for a name that is not found, with the closest name.

    Args:
        name: as requested.
        names: all valid ones.
        broken: files that cannot be used; the name may be that of one.
        what: noun for such a file.
        route: lists the valid ones.
    """
    for file in broken:
        if Path(file.file).stem == name:
            return f"cannot be used: {file.file} {file.reason}"
    close = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"there is no {what} {name!r} on this server{hint} (see GET {route})"


class WeightFolder(Generic[Entry]):
    """The described files of one folder. Thread-safe.

    The folder is listed at every call. A file's header is read again only when its time or size
    has changed.

    Args:
        folder: may be missing.
        describe: makes an entry from a file; raises `ValueError` with the reason if it cannot be
            used.
    """

    def __init__(self, folder: Path, describe: Callable[[Path, Header], Entry]) -> None:
        self._folder = folder
        self._describe: Callable[[Path, Header], Entry] = describe
        self._known: dict[tuple[Path, int, int], Entry | BrokenFile] = {}

    def read(self) -> tuple[tuple[Entry, ...], tuple[BrokenFile, ...]]:
        # A new dictionary each time forgets files that are gone, and needs no lock.
        known = {key: self._known.get(key) or self._judge(key[0]) for key in self._files()}
        self._known = known
        broken = tuple(found for found in known.values() if isinstance(found, BrokenFile))
        entries = tuple(found for found in known.values() if not isinstance(found, BrokenFile))
        return entries, broken

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            if path.suffix.lower() in (ENDING, *PICKLED) and not path.name.startswith("."):
                try:
                    stat = path.stat()
                except OSError:  # a dangling link, or a file that was just removed
                    continue
                yield path, stat.st_mtime_ns, stat.st_size

    def _judge(self, path: Path) -> Entry | BrokenFile:
        if path.suffix.lower() != ENDING:
            return BrokenFile(file=path.name, reason=PICKLE)
        try:
            return self._describe(path, reading.read_addon_header(path))
        except ValueError as error:
            return BrokenFile(file=path.name, reason=str(error))
