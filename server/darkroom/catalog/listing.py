"""The files in the folders of models and add-ons, and in those of other programs.

A file's name is its path in its folder without the ending, such as `sdxl/juggernaut`. Folders of
other programs are read in place: A1111's and its heirs', ComfyUI's, SwarmUI's, Stability Matrix's,
and Hugging Face's cache.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

EMBEDDED = Path(__file__).parent.parent / "models"
CONFIGS = EMBEDDED / "configs"  # of the architectures of single files
INCLUDED_UPSCALERS = EMBEDDED / "upscalers"
MAX_DEPTH = 8  # of folders in folders
HUB_MODEL = "models--"  # how folders of Hugging Face's cache begin: models--owner--name

# What is kept in a folder → how programs call the folder, in lower case.
FOLDERS: Mapping[str, frozenset[str]] = {
    "models": frozenset(
        {"checkpoints", "stable-diffusion", "stablediffusion", "diffusion_models", "unet"}
    ),
    "loras": frozenset({"loras", "lora", "lycoris"}),
    "embeddings": frozenset({"embeddings", "textualinversion"}),
    "upscalers": frozenset({"upscalers", "upscale_models", "esrgan", "realesrgan"}),
    "vae": frozenset({"vae"}),
    "text_encoders": frozenset({"text_encoders", "clip"}),
}

# Two seconds on FAT (https://en.wikipedia.org/wiki/Design_of_the_FAT_file_system), less elsewhere.
RESOLUTION_S = 3.0

Entries = Sequence["os.DirEntry[str]"]
Stamp = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Listed:
    """A file, or a folder that counts as one.

    Attributes:
        key: its name, see above.
        siblings: names of all that is in the same folder.
    """

    path: Path
    key: str = field(compare=False)
    is_folder: bool = field(default=False, compare=False)
    siblings: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @property
    def name(self) -> str:
        """The file's name, with its ending."""
        return self.path.name

    @property
    def file(self) -> str:
        """Its path in its folder, with its ending."""
        return self.key[: len(self.key) - len(self.stem)] + self.path.name

    @property
    def stem(self) -> str:
        """Its name without folders and without its ending."""
        return self.key.rpartition("/")[2]

    def beside(self, *endings: str) -> Iterator[Path]:
        """The files beside it that have its name and one of these endings, in their order."""
        for ending in endings:
            if f"{self.stem}{ending}" in self.siblings:
                yield self.path.with_name(f"{self.stem}{ending}")


IsOne = Callable[[Collection[str]], bool]


def walk(root: Path, is_one: IsOne = lambda _: False) -> Iterator[Listed]:
    """All files below a folder, in the order of their names. Links are followed.

    Hidden ones are left out. A folder is listed instead of what is in it if `is_one` is true of the
    names of that, and if it cannot be read.
    """
    return _Walk(is_one).of(root)


class KeptWalk:
    """`walk`, which reads folders again only when one of them has changed. Thread-safe.

    A new, removed or renamed file changes its folder's time. What is in files does not.
    """

    def __init__(self, is_one: IsOne = lambda _: False) -> None:
        self._is_one = is_one
        self._kept: dict[Path, tuple[dict[Path, Stamp], tuple[Listed, ...]]] = {}

    def __call__(self, root: Path) -> tuple[Listed, ...]:
        """The files below a folder; the same object as long as nothing has changed."""
        kept = self._kept.get(root)
        if kept is not None and all(_stamp(path) == known for path, known in kept[0].items()):
            return kept[1]
        walked = _Walk(self._is_one)
        began = time.time()
        found = tuple(walked.of(root))
        # A change within the resolution of a folder's time would not be seen.
        changed = (stamp[0] / 1e9 for stamp in walked.seen.values() if stamp is not None)
        if all(abs(began - at) > RESOLUTION_S for at in changed):
            self._kept[root] = (walked.seen, found)
        else:
            self._kept.pop(root, None)
        return found


class _Walk:
    """One walk. `seen` are its folders, and links that lead nowhere, as they were before."""

    def __init__(self, is_one: IsOne) -> None:
        self._is_one = is_one
        self.seen: dict[Path, Stamp] = {}

    def of(self, root: Path) -> Iterator[Listed]:
        found = self._entries(root)
        if found is not None:
            yield from self._inside(root, found, "", ())

    def _inside(
        self, folder: Path, entries: Entries, prefix: str, above: tuple[tuple[int, int], ...]
    ) -> Iterator[Listed]:
        here = folder.stat()
        place = (here.st_dev, here.st_ino)
        if place in above or len(above) > MAX_DEPTH:  # links that lead in a circle
            return
        siblings = frozenset(entry.name for entry in entries)
        for entry in entries:
            path, name = folder / entry.name, prefix + entry.name
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                if entry.is_symlink() and not path.exists():
                    self.seen[path] = None
                yield Listed(path, prefix + path.stem, siblings=siblings)
                continue
            inside = self._entries(path)
            if inside is None or self._is_one([each.name for each in inside]):
                yield Listed(path, name, is_folder=True, siblings=siblings)
            else:
                with suppress(OSError):  # it was just removed
                    yield from self._inside(path, inside, f"{name}/", (*above, place))

    def _entries(self, folder: Path) -> Entries | None:
        self.seen[folder] = _stamp(folder)
        return _entries(folder)


def _stamp(path: Path) -> Stamp:
    """When a folder changed, and which it is; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_dev, found.st_ino, found.st_mode


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder, or a link to one. A link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(folder: Path) -> Entries | None:
    """What is in a folder, by name; None if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return None


def children(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden; none if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


@dataclass(frozen=True)
class SharedFolders:
    """Folders of other programs, or of another Darkroom, to read in place.

    Each may be a program's folder, its folder of models, a Hugging Face cache, or a plain folder of
    models. They are looked at anew each time, since a disk may come and go.
    """

    paths: tuple[Path, ...] = ()

    def of(self, kind: str) -> list[Path]:
        """The folders of one of the kinds in `FOLDERS`, in the order of `paths`."""
        return [folder for path in self.paths for folder in _folders(path).get(kind, ())]

    def hubs(self) -> list[Path]:
        """The caches of Hugging Face."""
        return [hub for path in self.paths for hub in _hubs(path)]

    def missing(self) -> list[Path]:
        """Those that are not there, or cannot be read."""
        return [path for path in self.paths if _entries(path) is None]


def _hubs(path: Path) -> list[Path]:
    """The path, or the folder `hub` in it, if that is a cache of Hugging Face."""
    return [
        folder
        for folder in (path, path / "hub")
        if any(entry.name.startswith(HUB_MODEL) for entry in _entries(folder) or ())
    ]


def _folders(path: Path) -> dict[str, list[Path]]:
    """A program's folders by kind."""
    if _hubs(path):
        return {}
    top = _entries(path) or ()
    inner = [path / entry.name for entry in top if entry.name.lower() == "models"]
    found: dict[str, list[Path]] = {}
    for folder in (path, *inner):
        for entry in _entries(folder) or ():
            for kind, names in FOLDERS.items():
                if entry.name.lower() in names and _is_folder(entry):
                    found.setdefault(kind, []).append(folder / entry.name)
    if "models" not in found and (inner or not found):
        found["models"] = inner or [path]
    return found


def snapshots(hub: Path) -> Iterator[Listed]:
    """The models in a cache of Hugging Face, each in the version that its main branch has there.

    Their names are `owner/name`.
    """
    for entry in _entries(hub) or ():
        owner, _, name = entry.name.removeprefix(HUB_MODEL).partition("--")
        if not entry.name.startswith(HUB_MODEL) or not name:
            continue
        folder = hub / entry.name
        versions = _entries(folder / "snapshots") or ()
        main = ""
        with suppress(OSError, UnicodeDecodeError):
            main = (folder / "refs" / "main").read_text().strip()
        newest = max(
            versions, key=lambda version: (version.name == main, version.name), default=None
        )
        if newest is not None:
            yield Listed(folder / "snapshots" / newest.name, f"{owner}/{name}", is_folder=True)
