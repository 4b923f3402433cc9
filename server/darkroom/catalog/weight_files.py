"""JSON and safetensors files, read without torch."""

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, BinaryIO, Protocol, TypeVar

from safetensors import SafetensorError, safe_open

from darkroom.errors import DarkroomError

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")  # loading these can run code stored in them

SCALES = (".scale_weight", ".weight_scale")  # of fp8, beside `.weight`
AVERAGED = "model_ema."  # of a UNet: what checkpoints that go on training hold besides
MAX_JSON_BYTES = 16 * 2**20  # of a configuration or index; the largest index has 1 MiB
MAX_HEADER_BYTES = 32 * 2**20  # the largest seen, with all captions of a training set, is 10 MiB
MAX_TENSORS = 50_000  # of one file; the largest models and LoRAs have some thousands
# Of a header's texts that are not inside others: five for each tensor, two for each entry of the
# metadata. Reading a header takes memory in proportion.
MAX_TEXTS = 10 * MAX_TENSORS
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
        # Windows' editors mark UTF-8.
        value = json.loads(read_bytes(path, MAX_JSON_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        raise UnusableError(f"{short} is missing") from None
    except OSError as error:
        raise UnusableError(f"{short} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{short} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnusableError(f"{short} does not hold a JSON object")
    return value


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes. OSError if it is none: a pipe would be waited for for ever."""
    opened = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "it is no file")
    return opened


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file; OSError if it has more than `limit` bytes, or as `open_file`."""
    with open_file(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes")
    return data


def read_header(path: Path) -> Header:
    """Read the header of a model's file; `UnusableError` if that is damaged or not safetensors."""
    try:
        header = _parse(path)
    except SafetensorError as error:
        with open_file(path) as file:
            start = file.read(32)
        others = (reason for other, reason in OTHER_STARTS if start.startswith(other))
        reason = next(others, f"is cut short or damaged ({error})")
        raise UnusableError(f"{path.name} {reason}") from None
    except OSError as error:
        raise UnusableError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not header.shapes:
        raise UnusableError(f"{path.name} holds no tensors")
    return header


def read_floats(path: Path) -> Header:
    """As `read_header`, of a file whose weights are not quantised; `UnusableError` if they are."""
    header = read_header(path)
    for name, dtype in header.dtypes.items():
        # diffusers would take them for the values of the weights.
        if name.endswith(".weight") and not dtype.startswith(("F", "BF")):
            raise UnusableError(
                f"{path.name} holds weights as whole numbers ({name} is {dtype}), so it is "
                "quantised in a way that is not read"
            )
    return header


def check_scales(header: Header) -> None:
    """Raise `UnusableError` for weights that are quantised in another way than scaled fp8."""
    for name, shape in header.shapes.items():
        if name.endswith(SCALES) and math.prod(shape) != 1:
            raise UnusableError(f"its weights have many scales each ({name}), which are not read")


def read_addon_header(path: Path) -> Header:
    """Read the header of an add-on's file; `UnusableAddonError` if that is damaged."""
    try:
        with open_file(path) as file:
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
    """The header of a safetensors file. The library checks its offsets against the file's size.

    Raises:
        OSError: it cannot be read; says why, which the library does not.
        SafetensorError: it is damaged, or so large that it would take long to read.
    """
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES and length <= os.fstat(file.fileno()).st_size:
            raise SafetensorError(f"its header has {length} bytes")
        header = file.read(length) if length <= MAX_HEADER_BYTES else b""
    count = header.count(b'"data_offsets"')
    if count > MAX_TENSORS:
        raise SafetensorError(f"its header lists {count} tensors")
    if header.count(b'"') - header.count(b'\\"') > 2 * MAX_TEXTS:
        raise SafetensorError("its header has too many entries")
    # Of the frameworks that the library knows, numpy alone is light enough for the web process.
    with safe_open(path, framework="np"):
        pass  # it is whole; asking the library for each tensor takes four times as long
    tensors = json.loads(header)
    metadata = tensors.pop("__metadata__", None) or {}
    shapes = {name: tuple(tensor["shape"]) for name, tensor in tensors.items()}
    dtypes = {name: tensor["dtype"] for name, tensor in tensors.items()}
    return Header(shapes, dtypes, metadata)


def count_numbers(path: Path, prefix: str = "") -> int:
    """As `numbers_of`, of a file; `UnusableError` as `read_header`."""
    return numbers_of(read_header(path), prefix)


def numbers_of(header: Header, prefix: str = "") -> int:
    """How many numbers the tensors of a model's file hold that are loaded from it.

    Those whose names begin with `prefix`. Checkpoints that go on training hold averaged weights
    besides, which are not counted.
    """
    return sum(
        math.prod(shape)
        for name, shape in header.shapes.items()
        if name.startswith(prefix) and not name.startswith(AVERAGED)
    )


class Named(Protocol):
    """A file or folder: a path, or what stands for one."""

    @property
    def name(self) -> str: ...


Found = TypeVar("Found")
Key = TypeVar("Key", bound=Named)


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


def stamps(paths: Iterable[Path]) -> list[object]:
    """As `stamp`, of the files of which there are any; links may lead nowhere."""
    found: list[object] = []
    for path in paths:
        with suppress(OSError):
            found += [path.name, *stamp(path)]
    return found


def cached(look: Callable[[Key], Found], stamp: Callable[[Key], object]) -> Callable[[Key], Found]:
    """Cache a function of a file or folder until its stamp changes.

    An `UnusableError` that it raises is cached too. The result raises one if the file is gone.
    """
    results: dict[Key, tuple[object, Found | UnusableError]] = {}

    def cached_look(key: Key) -> Found:
        try:
            now = stamp(key)
        except OSError as error:
            raise UnusableError(f"{key.name} cannot be read: {error.strerror}") from None
        if key not in results or results[key][0] != now:
            try:
                results[key] = (now, look(key))
            except UnusableError as error:
                results[key] = (now, error)
        found = results[key][1]
        if isinstance(found, UnusableError):
            raise UnusableError(str(found))  # a fresh one: raising adds to its traceback
        return found

    return cached_look
