"""What downloads from all hubs share: where a file goes, whether there is room, and its header.

A download is planned before it begins. The plan's heads, files that have a header and nothing
after it, let the catalog judge a model of many gigabytes that is not here yet.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.weight_files import MAX_HEADER_BYTES, SAFETENSORS
from darkroom.config import Settings
from darkroom.errors import DarkroomError, message

GIB = 2**30
FIRST_BYTES = 2**20  # of a file, in which its header is mostly
MAX_JSON_BYTES = 2**20  # of a model's configuration
UNFINISHED = ".pull-"  # begins the names of what has not arrived yet
ENDINGS = ("", SAFETENSORS, GGUF)  # of models

_ADDRESS = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")


class PullError(DarkroomError):
    """A model cannot be downloaded. The message says why and what to do."""


class HubError(PullError):
    """The hub could not be asked, or answered in a way that may pass."""


class NoRoomError(PullError):
    """The disk has no room for it."""


class HeadError(DarkroomError):
    """This disk makes no file of that size, even one of holes."""


class NameTakenError(PullError):
    """There is a file of that name already."""


@dataclass(frozen=True)
class Wanted:
    """What to download.

    Attributes:
        source: `owner/name`, `owner/name:file`, `civitai:ID` or the address of a page on a hub.
        name: of the model on this server; None for its own.
        revision: of a repository: branch, tag or commit; None for the main branch.
        variant: of the weights, such as `fp16`; None for the smallest that loses nothing on a GPU.
    """

    source: str
    name: str | None = None
    revision: str | None = None
    variant: str | None = None


@dataclass(frozen=True)
class Hubs:
    """The hubs, and where their files go. The Hugging Face Hub's own variables say which it is.

    Attributes:
        civitai_token: of an account there; never shown.
        paths: folders of other programs, which may have parts of a model.
        quantize: what transformers are quantised to when they are loaded.
        reserve: bytes of the disk that stay free.
    """

    data_dir: Path
    civitai_url: str
    civitai_token: str | None = field(repr=False)
    paths: tuple[Path, ...] = ()
    quantize: Literal["none", "int8", "fp8"] = "none"
    reserve: int = 0

    @classmethod
    def of(cls, settings: Settings) -> "Hubs":
        """Those that the settings name."""
        token = settings.models.civitai_token
        return cls(
            settings.data_dir,
            settings.models.civitai_url,
            token.get_secret_value() if token else None,
            settings.models.paths,
            settings.engine.quantize,
            settings.queue.min_free_bytes,
        )


@dataclass(frozen=True)
class Judgement:
    """What the catalog says of a download before it has arrived.

    Attributes:
        family: of a model; empty for the rest.
        lacks: why it could not be used as it will be, such as a missing text encoder.
        memory_bytes: what its weights would take in the memory of each worker that was named;
            empty if that is not known.
    """

    family: str = ""
    lacks: str | None = None
    memory_bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What will be downloaded, and where it will be.

    Attributes:
        pinned: asks for exactly these bytes again, whatever is published later.
        kind: the folder in the data folder: `models`, `loras`, ….
        title: what the hub calls it.
        target: its path when it has arrived.
        unfinished: the file or folder that holds what has arrived until then.
    """

    pinned: Wanted
    kind: str
    name: str
    title: str
    target: Path
    unfinished: Path
    files: int
    total_bytes: int

    def here_bytes(self) -> int:
        """Bytes of it that have arrived."""
        return size_of(self.unfinished)


class Download(Protocol):
    """A download from a hub that is planned."""

    @property
    def plan(self) -> Plan: ...

    def write_heads(self, folder: Path) -> None:
        """Write the beginnings of its files into a folder, under the names that they will have.

        Raises:
            PullError: the hub does not give them.
            HeadError: this disk makes no files of that size.
        """
        ...

    def fetch(self, echo: Callable[[str], None]) -> Path:
        """Download what is missing, and return the target. `echo` prints progress.

        Raises:
            PullError: nothing was added. What has arrived is kept, unless it is damaged.
        """
        ...


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; 0 if there is none."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        inside = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        return sum(file.stat().st_size for file in inside)
    except OSError:  # it is just being renamed
        return 0


def discard(path: Path) -> None:
    """Remove what has arrived of a download."""
    if path.name.startswith(UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def check_name(name: str, folder: Path, endings: tuple[str, ...] = (SAFETENSORS,)) -> None:
    """Raise `PullError` if something new cannot have a name, or a file in the folder has it."""
    if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise PullError(
            message("pull_name", "{name!r} cannot be a name here; choose another", name=name)
        )
    for ending in endings:
        if (folder / f"{name}{ending}").exists():
            raise NameTakenError(
                message(
                    "pull_taken",
                    "{file} is there already; delete it or choose another name",
                    file=f"{folder.name}/{name}{ending}",
                )
            )


def check_room(needed: int, folder: Path, reserve: int = 0) -> None:
    """Raise `NoRoomError` if so many bytes more do not fit on a folder's disk."""
    free = free_bytes(folder) - reserve
    if needed > free:
        raise NoRoomError(
            message(
                "pull_room",
                "it needs {needed} GiB more, and {free} GiB are free; delete what is not used",
                needed=round(needed / GIB, 2),
                free=round(max(free, 0) / GIB, 2),
            )
        )


def free_bytes(folder: Path) -> int:
    """Free on the disk of a folder, which may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def write_head(path: Path, size: int, read: Callable[[int], bytes]) -> None:
    """Write a file of weights that is complete up to the end of its header, and empty after it.

    The rest is a hole, which takes no room on the disk.

    Args:
        path: of the file.
        size: of the whole file, in bytes.
        read: gets the first bytes of it, so many or fewer.

    Raises:
        HeadError: the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    start = read(min(size, FIRST_BYTES)) if size else b""
    if path.suffix == SAFETENSORS:
        end = 8 + int.from_bytes(start[:8], "little")
        if len(start) < end <= min(size, 8 + MAX_HEADER_BYTES):
            start = read(end)
    path.write_bytes(start)
    try:
        os.truncate(path, max(size, len(start)))
    except OSError as error:
        raise HeadError(str(error)) from None


def why(error: Exception) -> str:
    """The first line of an error's text, without secrets."""
    lines = (line for line in str(error).splitlines() if line.strip())
    return without_secrets(next(lines, type(error).__name__))


def without_secrets(text: str) -> str:
    """A text without the queries of the addresses in it, where signatures and tokens are."""
    return _ADDRESS.sub(r"\1", text)


def explain(error: Exception) -> PullError:
    """The error for what a download met that is not about the hub."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError(
            message(
                "pull_disk_full",
                "the disk is full; make room and try again: what has arrived is kept",
            )
        )
    return PullError(message("pull_failed", "{reason}; try again", reason=why(error)))


def away(reason: str) -> HubError:
    """The error for a hub that cannot be reached."""
    return HubError(
        message("hub_away", "the hub cannot be reached ({reason}); try again later", reason=reason)
    )


def damaged(file: str) -> PullError:
    """The error for a file whose bytes are not those that were published."""
    return PullError(
        message("pull_damaged", "{file} arrived damaged and was dropped; try again", file=file)
    )


def unusable(reason: str) -> PullError:
    """The error for a file that arrived, or would arrive, and cannot be used."""
    return PullError(message("pull_unusable", "it cannot be used: {reason}", reason=reason))


RUNNING = message("pull_running", "this is being downloaded already")
