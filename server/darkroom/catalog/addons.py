"""Folders of add-ons: LoRAs, embeddings, upscalers."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from darkroom.catalog import sidecars
from darkroom.catalog.listing import KeptWalk, Listed, SharedFolders
from darkroom.catalog.weight_files import (
    PICKLES,
    SAFETENSORS,
    Header,
    Named,
    UnusableError,
    cached,
    count_numbers,
    read_addon_header,
    stamp,
    stamps,
)
from darkroom.errors import DarkroomError, Message, did_you_mean, message
from darkroom.responses import BrokenFile

PICKLED_ADDON = "is a pickle, which can run programs when it is opened; convert it to safetensors"
NAMESAKE = "has the name of a file before it; rename one of them"
NO_FOLDERS = SharedFolders()

# Endings of what is kept beside weights, and is no weights.
HARMLESS = frozenset(
    {"", *(".json", ".info", ".yaml", ".yml", ".toml", ".txt", ".md", ".html", ".csv", ".url")}
    | {*(".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".mp4", ".webm", ".sha256", ".log")}
    | {*(".py", ".cfg", ".ini", ".lock", ".db", ".metadata", ".jsonl", ".xml", ".pdf", ".ipynb")}
)
# Ending of another file → why it is not read.
UNREAD: Mapping[str, str] = {
    ".gguf": "is a GGUF file, which is not read here; take the safetensors version",
    ".sft": "is not read under this ending; rename it to .safetensors",
    **dict.fromkeys(
        (".part", ".partial", ".crdownload", ".download", ".aria2", ".incomplete", ".tmp"),
        "is a download that was not finished",
    ),
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".gz"), "is an archive; unpack it"),
    **dict.fromkeys(
        (".onnx", ".engine", ".trt", ".mlmodelc", ".mlpackage"),
        "is compiled for another program; take the safetensors version",
    ),
}


@dataclass(frozen=True)
class AddonEntry:
    """An add-on's file."""

    path: Path
    info: Named

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names by which it may be asked for, where no other has them."""
        return ()

    def expected_bytes(self, number_bytes: int) -> int:
        """Bytes of its weights in memory, where each number takes so many."""
        return number_bytes * count_numbers(self.path)


Entry = TypeVar("Entry", bound=AddonEntry)


@dataclass
class _Index:
    """The files that walks found, and those of each name and alias when they were read last."""

    walks: list[tuple[Listed, ...]]
    files: tuple[Listed, ...]
    called: Mapping[str, Listed] | None = None

    def is_of(self, walks: list[tuple[Listed, ...]]) -> bool:
        """Whether it is made of these same walks."""
        return len(walks) == len(self.walks) and all(map(operator.is_, walks, self.walks))


class AddonFolder(Generic[Entry]):
    """The add-ons of one kind, described by their headers. Thread-safe.

    At every call folders that have changed are listed again, so that new files are found at once.
    Of two files with one name the first has it; the server's own folder goes before those of other
    programs.

    Args:
        folder: the server's own; may be missing.
        describe: makes an entry from a file; raises `ValueError` with the reason if it cannot be
            used.
        noun: for one of them; in the plural it is the route that lists them.
        unknown: the exception of `find`.
        shared: folders of other programs.
        included: the package's own; a file elsewhere with the name of one of its files replaces it.

    Attributes:
        elsewhere: returns what workers on other machines have besides, by name.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[Listed, Header], Entry],
        noun: str,
        unknown: type[DarkroomError] = DarkroomError,
        shared: SharedFolders = NO_FOLDERS,
        included: Path | None = None,
    ) -> None:
        self._folder = folder
        self._included = included
        self._describe = describe
        self._noun = noun
        self._unknown = unknown
        self._shared = shared
        self._judge = cached(self._read_file, _stamp)
        self.elsewhere: Callable[[], Mapping[str, Entry]] = dict
        self._walk = KeptWalk()
        self._index: _Index | None = None

    def entries(self) -> tuple[Entry, ...]:
        return self.read()[0]

    def broken(self) -> tuple[BrokenFile, ...]:
        """The files that cannot be used."""
        return self.read()[1]

    def read(self) -> tuple[tuple[Entry, ...], tuple[BrokenFile, ...]]:
        index = self._list()
        entries: list[Entry] = []
        broken: list[BrokenFile] = []
        named: dict[str, Listed] = {}
        aliases: dict[str, list[Listed]] = {}
        for listed in index.files:
            found = self._judged(listed)
            if isinstance(found, BrokenFile):
                broken.append(found)
            elif found.info.name in named:
                broken.append(BrokenFile(file=listed.file, reason=NAMESAKE))
            else:
                named[found.info.name] = listed
                for alias in found.aliases:
                    aliases.setdefault(alias, []).append(listed)
                entries.append(found)
        entries += [entry for name, entry in self.elsewhere().items() if name not in named]
        sole = {alias: theirs[0] for alias, theirs in aliases.items() if len(theirs) == 1}
        index.called = {**sole, **named}
        return tuple(entries), tuple(broken)

    def _list(self) -> "_Index":
        """The files of all folders, without those of the package that are replaced."""
        folders = [self._folder, *self._shared.of(f"{self._noun.lower()}s")]
        walks = [self._walk(folder) for folder in folders]
        included = self._walk(self._included) if self._included else ()
        index = self._index
        if index is None or not index.is_of([*walks, included]):
            files = list(filter(may_be_weights, chain(*walks)))
            replaced = {listed.key for listed in files}
            own = (each for each in filter(may_be_weights, included) if each.key not in replaced)
            index = self._index = _Index([*walks, included], (*files, *own))
        return index

    def _judged(self, listed: Listed) -> Entry | BrokenFile:
        try:
            return self._judge(listed)
        except UnusableError as error:  # a dangling link, or a file that was just removed
            return BrokenFile(file=listed.file, reason=_without_name(error, listed))

    def _known(self, name: str) -> Entry | None:
        """The entry that had a name or alias when the files were read last, if it still has it.

        It takes the same time however many files there are.
        """
        called = self._list().called
        if called is None:
            return None
        if name not in called:
            return self.elsewhere().get(name)
        found = self._judged(called[name])
        if isinstance(found, BrokenFile):
            return None
        return found if name in (found.info.name, *found.aliases) else None

    def find(self, name: str) -> Entry:
        """Look up an entry. The name is compared with files, never joined to a path.

        Raises:
            DarkroomError: of the class `unknown`; says what was probably meant, or what is wrong
                with the file.
        """
        if (known := self._known(name)) is not None:
            return known
        entries, broken = self.read()
        for entry in entries:
            if entry.info.name == name:
                return entry
        called = [entry for entry in entries if name in entry.aliases]
        if len(called) == 1:
            return called[0]
        if called:
            names = ", ".join(entry.info.name for entry in called)
            raise self._unknown(
                message(
                    "ambiguous_file",
                    "several {kind}s are called {name!r}: {names}",
                    kind=self._noun,
                    name=name,
                    names=names,
                )
            )
        for file in broken:
            if str(Path(file.file).with_suffix("")) == name:
                reason = f"{file.file} {file.reason}"
                raise self._unknown(
                    message("broken_file", "cannot be used: {reason}", reason=reason)
                )
        close = did_you_mean(name, (entry.info.name for entry in entries))
        route = f"/{self._noun.lower()}s"
        detail = f"there is no {self._noun} {name!r} on this server{close} (see GET {route})"
        raise self._unknown(Message(detail, "unknown_file", {"kind": self._noun, "name": name}))

    def _read_file(self, listed: Listed) -> Entry | BrokenFile:
        reason = why_not_read(listed.path)
        if reason is not None:
            return BrokenFile(file=listed.file, reason=reason)
        try:
            return self._describe(listed, read_addon_header(listed.path))
        except ValueError as error:
            return BrokenFile(file=listed.file, reason=str(error))


def _stamp(listed: Listed) -> list[object]:
    """What changes with a file, and with what is known of it."""
    return [*stamp(listed.path), *stamps(listed.beside(*sidecars.ALL))]


def may_be_weights(listed: Listed) -> bool:
    """Whether a file is to be read, or named if it cannot be; not what is kept beside weights."""
    return not listed.is_folder and listed.path.suffix.lower() not in HARMLESS


def why_not_read(path: Path) -> str | None:
    """Why a file is not read, by its ending; None for safetensors."""
    ending = path.suffix.lower()
    if ending == SAFETENSORS:
        return None
    if ending in PICKLES:
        return PICKLED_ADDON
    return UNREAD.get(ending, f"is no safetensors file, and {ending} is not read")


def _without_name(error: UnusableError, listed: Listed) -> str:
    return str(error).removeprefix(f"{listed.name} ")
