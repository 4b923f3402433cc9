"""JSON and safetensors files, read without torch, and folders of add-ons: LoRAs, upscalers, …."""

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError, safe_open

from darkroom.errors import DarkroomError, Message, did_you_mean, message
from darkroom.responses import BrokenFile

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")  # loading these can run code stored in them
PICKLED_ADDON = "is a pickle, which can run programs when it is opened; convert it to safetensors"

AVERAGED = "model_ema."  # of a UNet: what checkpoints that go on training hold besides
MAX_HEADER_BYTES = 32 * 2**20  # the largest seen, with all captions of a training set, is 10 MiB
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02")  # of torch.save's files, since and before 1.6

# First bytes of other files that are often named like weights. Compared only if a file is not
# safetensors: those begin with a number, whose bytes may be any of these.
OTHER_STARTS: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights: run `git lfs pull`"),
    (PICKLE_STARTS, "is a pickled checkpoint under another name: loading it could run code"),
    (b"<", "is a web page, not weights: the download was answered by an error or a login page"),
    (b"GGUF", "is a GGUF file under another name; only safetensors are read"),
)


class UnusableError(DarkroomError, ValueError):
    """A file or model cannot be used. The message names it and says why, for the owner."""


class UnusableAddonError(DarkroomError, ValueError):
    """An add-on's file cannot be used. The message says why, without the file's name."""


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: the shape and dtype of each tensor, and text, by key.

    Dtypes are as safetensors names them: F32, BF16, I8, ….
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `UnusableError` if the file is missing or holds something else."""
    short = f"{path.parent.name}/{path.name}"  # finds the file in a model's folder
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors mark UTF-8
    except FileNotFoundError:
        raise UnusableError(f"{short} is missing") from None
    except OSError as error:
        raise UnusableError(f"{short} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{short} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnusableError(f"{short} does not hold a JSON object")
    return value


def read_header(path: Path) -> Header:
    """Read the header of a model's file; `UnusableError` if that is damaged or not safetensors."""
    try:
        header = _parse(path)
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(32)
        others = (reason for other, reason in OTHER_STARTS if start.startswith(other))
        reason = next(others, f"is cut short or damaged ({error})")
        raise UnusableError(f"{path.name} {reason}") from None
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not header.shapes:
        raise UnusableError(f"{path.name} holds no tensors")
    for name, dtype in header.dtypes.items():
        # diffusers would take them for the values of the weights.
        if name.endswith(".weight") and not dtype.startswith(("F", "BF")):
            raise UnusableError(
                f"{path.name} holds weights as whole numbers ({name} is {dtype}), so it is "
                "quantised in a way that is not read"
            )
    return header


def read_addon_header(path: Path) -> Header:
    """Read the header of an add-on's file; `UnusableAddonError` if that is damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(PICKLE_STARTS):
            raise UnusableAddonError("is a pickle under another name; convert it to safetensors")
        if len(start) < 8 or int.from_bytes(start, "little") > MAX_HEADER_BYTES:
            raise UnusableAddonError("is not a safetensors file")
        return _parse(path)
    except SafetensorError as error:
        raise UnusableAddonError(f"is cut off or damaged ({error})") from None
    except OSError as error:
        raise UnusableAddonError(f"cannot be read ({error.strerror})") from None


def _parse(path: Path) -> Header:
    with path.open("rb"):
        pass  # says why it cannot be read, which the library does not
    # Of the frameworks that the library knows, numpy alone is light enough for the web process.
    with safe_open(path, framework="np") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
        dtypes = {name: tensor.get_dtype() for name, tensor in slices.items()}
        return Header(shapes, dtypes, opened.metadata() or {})


def count_numbers(path: Path, prefix: str = "") -> int:
    """How many numbers the tensors of a model's file hold that are loaded from it.

    Those whose names begin with `prefix`. Checkpoints that go on training hold averaged weights
    besides, which are not counted. `UnusableError` as `read_header`.
    """
    shapes = read_header(path).shapes
    read = (name for name in shapes if name.startswith(prefix) and not name.startswith(AVERAGED))
    return sum(math.prod(shapes[name]) for name in read)


Found = TypeVar("Found")


def stamp(path: str | Path, levels: int = 2) -> list[object]:
    """What changes with a file, or with the files in a folder and in its subfolders.

    That is each one's name, times and size. The second time is the kernel's, which no copy keeps,
    and which changes with permissions too.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    stat = os.stat(path)  # noqa: PTH116 - every request does this for every file of a model
    found: list[object] = [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size]
    if levels and S_ISDIR(stat.st_mode):
        with os.scandir(path) as entries:
            for entry in entries:
                found.append(entry.name)
                with suppress(OSError):  # a dangling link, or a file that was just removed
                    found += stamp(entry.path, levels - 1)
    return found


def cached(
    look: Callable[[Path], Found], stamp: Callable[[Path], object] = stamp
) -> Callable[[Path], Found]:
    """Cache a function of a file or folder until its stamp changes.

    An `UnusableError` that it raises is cached too. The result raises one if the file is gone.
    """
    results: dict[Path, tuple[object, Found | UnusableError]] = {}

    def cached_look(path: Path) -> Found:
        try:
            now = stamp(path)
        except OSError as error:
            raise UnusableError(f"{path.name} cannot be read: {error.strerror}") from None
        if path not in results or results[path][0] != now:
            try:
                results[path] = (now, look(path))
            except UnusableError as error:
                results[path] = (now, error)
        found = results[path][1]
        if isinstance(found, UnusableError):
            raise UnusableError(str(found))  # a fresh one: raising adds to its traceback
        return found

    return cached_look


@dataclass(frozen=True)
class AddonEntry:
    """An add-on's file. Its name is the file's, without the ending."""

    path: Path

    def expected_bytes(self, number_bytes: int) -> int:
        """Bytes of its weights in memory, where each number takes so many."""
        return number_bytes * count_numbers(self.path)


Entry = TypeVar("Entry", bound=AddonEntry)


class AddonFolder(Generic[Entry]):
    """The add-ons in one folder, described by their headers. Thread-safe.

    The folder is listed at every call, so that new files are found at once.

    Args:
        folder: may be missing.
        describe: makes an entry from a file; raises `ValueError` with the reason if it cannot be
            used.
        noun: for one of them; in the plural it is the route that lists them.
        unknown: the exception of `find`.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[Path, Header], Entry],
        noun: str,
        unknown: type[DarkroomError] = DarkroomError,
    ) -> None:
        self._folder = folder
        self._describe = describe
        self._noun = noun
        self._unknown = unknown
        self._judge = cached(self._read_file)

    def entries(self) -> tuple[Entry, ...]:
        return self.read()[0]

    def broken(self) -> tuple[BrokenFile, ...]:
        """The files that cannot be used."""
        return self.read()[1]

    def read(self) -> tuple[tuple[Entry, ...], tuple[BrokenFile, ...]]:
        entries, broken = [], []
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if path.suffix.lower() in (SAFETENSORS, *PICKLES) and not path.name.startswith("."):
                try:
                    found = self._judge(path)
                except UnusableError:  # a dangling link, or a file that was just removed
                    continue
                if isinstance(found, BrokenFile):
                    broken.append(found)
                else:
                    entries.append(found)
        return tuple(entries), tuple(broken)

    def find(self, name: str) -> Entry:
        """Look up an entry. The name is compared with files, never joined to a path.

        Raises:
            DarkroomError: of the class `unknown`; says what was probably meant, or what is wrong
                with the file.
        """
        entries, broken = self.read()
        for entry in entries:
            if entry.path.stem == name:
                return entry
        for file in broken:
            if Path(file.file).stem == name:
                reason = f"{file.file} {file.reason}"
                raise self._unknown(
                    message("broken_file", "cannot be used: {reason}", reason=reason)
                )
        close = did_you_mean(name, (entry.path.stem for entry in entries))
        route = f"/{self._noun.lower()}s"
        detail = f"there is no {self._noun} {name!r} on this server{close} (see GET {route})"
        raise self._unknown(Message(detail, "unknown_file", {"kind": self._noun, "name": name}))

    def _read_file(self, path: Path) -> Entry | BrokenFile:
        if path.suffix.lower() != SAFETENSORS:
            return BrokenFile(file=path.name, reason=PICKLED_ADDON)
        try:
            return self._describe(path, read_addon_header(path))
        except ValueError as error:
            return BrokenFile(file=path.name, reason=str(error))
