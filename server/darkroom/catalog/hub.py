"""`darkroom models pull`: downloads a model from Hugging Face, completely or not at all."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # made late

from darkroom.catalog import checkpoints, families, folders, model_spec, single_files
from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.weight_files import SAFETENSORS, UnusableError, read_json
from darkroom.errors import DarkroomError

GIB = 2**30
SINGLE = (SAFETENSORS, GGUF)  # of models that are one file
PLAIN_FILES = (".json", ".txt", ".model")  # of a model beside its weights


class PullError(DarkroomError):
    """A model cannot be downloaded. The message says why and what to do."""


@dataclass(frozen=True)
class Download:
    """What to download.

    Attributes:
        repository: `owner/name` on the hub.
        file: a single-file checkpoint in it; None for a repository in the diffusers format.
        revision: branch, tag or commit; None for the main branch.
        name: of the model on this server; None for the repository's or file's name.
        variant: of the weights; None for the smallest that is lossless on a GPU, `plain` for
            those without a variant.
    """

    repository: str
    file: str | None = None
    revision: str | None = None
    name: str | None = None
    variant: str | None = None


Files = Mapping[str, RepoSibling]  # by path within the repository


def pull(order: Download, models_dir: Path, echo: Callable[[str], None]) -> Path:
    """Download a model into `models_dir`, created if need be, and return its path.

    An interrupted download continues at the byte where it stopped. `echo` prints progress.

    Raises:
        PullError: the model was not added.
    """
    name = order.name or PurePosixPath(order.file or order.repository).name
    ending = PurePosixPath(order.file or "").suffix
    name = name.removesuffix(ending if ending in SINGLE else "")
    if name != Path(name).name or name.startswith("."):
        raise PullError(f"{name!r} cannot be a model's name; choose another with --name")
    target = models_dir / f"{name}{ending}"
    if target.exists():
        raise PullError(f"there is a model {name!r} already; remove {target} or choose a --name")
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(models_dir / f".pull-{name}.lock", blocking=False):
            _pull(order, models_dir / f".pull-{name}", target, echo)
    except (
        OSError,
        httpx2.HTTPError,
        EntryNotFoundError,
        HFValidationError,
        UnusableError,
    ) as error:
        raise PullError(_explain(error, order)) from None
    return target


def _pull(order: Download, workplace: Path, target: Path, echo: Callable[[str], None]) -> None:
    info = HfApi().model_info(order.repository, revision=order.revision, files_metadata=True)
    there = {file.rfilename: file for file in info.siblings or () if _stays_inside(file.rfilename)}
    commit = info.sha or ""
    if re.fullmatch(r"[0-9a-f]{40,64}", commit) is None:
        raise PullError(f"the hub does not say which commit of {order.repository} this is")
    unfinished = workplace / commit  # files of another commit do not belong to this one
    chosen = _choose(order, there, commit, unfinished)
    total_bytes = sum(file.size or 0 for file in chosen.values())
    echo(f"{order.repository}: {len(chosen)} files, {total_bytes / GIB:.2f} GiB")
    here_bytes = 0
    for path in unfinished.rglob("*") if unfinished.is_dir() else ():
        if path.is_file() and path.relative_to(unfinished).as_posix() not in chosen:
            path.unlink()  # from a pull that asked for another variant
        elif path.is_file():
            here_bytes += path.stat().st_size
    check_room(total_bytes - here_bytes, target.parent)
    for file in chosen.values():
        _fetch(order.repository, commit, file, unfinished)
    arrived = unfinished if order.file is None else unfinished / order.file
    try:
        if order.file is None:
            folders.check(arrived, model_spec.examine(arrived).family)
        else:
            check_single(arrived)
    except UnusableError as error:
        shutil.rmtree(workplace)
        raise PullError(f"it arrived and cannot be used: {error}") from None
    arrived.rename(target)
    shutil.rmtree(workplace, ignore_errors=True)


def check_room(needed: int, folder: Path) -> None:
    """Raise `PullError` if so many bytes more do not fit on a folder's disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PullError(f"it needs {needed / GIB:.2f} GiB more, and {free / GIB:.2f} GiB are free")


def check_single(path: Path) -> None:
    """Raise `UnusableError` for a file that is no checkpoint, nor a network of one."""
    header = single_files.read_header(path)
    if single_files.recognise(header, path.stem) is None:
        checkpoints.recognise(header, path.name)


def _stays_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _choose(order: Download, there: Files, commit: str, unfinished: Path) -> Files:
    """The files to download. `PullError` says what else the repository offers."""
    repository, file = order.repository, order.file
    singles = sorted(name for name in there if name.endswith(SINGLE) and "/" not in name)
    offer = f"; there is {', '.join(singles)}" if singles else ""
    if file is not None:
        if file.endswith(folders.PICKLES):
            raise PullError(
                f"{file} is pickled: loading it could run code. Look for a safetensors one"
            )
        if file not in there or not file.endswith(SINGLE):
            raise PullError(f"{repository} has no checkpoint {file}{offer}")
        return {file: there[file]}
    if folders.INDEX in there:
        _fetch(repository, commit, there[folders.INDEX], unfinished)
        index = read_json(unfinished / folders.INDEX)
        return {name: there[name] for name in choose(there, index, order.variant)}
    if singles:
        raise PullError(
            f"{repository} is not in the diffusers format{offer}; "
            f"pull one with {repository}:{singles[0]}"
        )
    pickled = [name for name in there if name.endswith(folders.PICKLES)]
    if pickled:
        raise PullError(
            f"{repository} holds pickles only ({pickled[0]}): loading one could run code"
        )
    raise PullError(f"{repository} holds no model in the diffusers format")


def choose(files: Iterable[str], index: Mapping[str, Any], variant: str | None) -> list[str]:
    """Those of a repository's files from which a model is loaded, by its `model_index.json`.

    Raises:
        PullError: the model could not be used here, or has no such variant.
    """
    cls = index.get("_class_name")
    family = families.find(cls) if isinstance(cls, str) else None
    if family is None:
        raise PullError(f"{cls} is not served: {families.why_not(str(cls))}")
    if family.lacks is not None:
        raise PullError(family.lacks)
    paths = [PurePosixPath(file) for file in files]
    chosen = [folders.INDEX]
    weights: dict[str, folders.Variants] = {}
    unused = folders.UNUSED if family in families.UNETS else ()
    for part, value in index.items():
        match value:
            case [str(), str(part_class)] if part not in unused:
                inside = [path.name for path in paths if path.parent == PurePosixPath(part)]
            case _:
                continue
        plain = [file for file in inside if file.endswith(PLAIN_FILES) and ".index." not in file]
        chosen += [f"{part}/{file}" for file in plain]
        if "config.json" in inside and "Tokenizer" not in part_class:
            weights[part] = folders.variants(inside)
            if not weights[part]:
                pickled = [file for file in inside if file.endswith(folders.PICKLES)]
                raise PullError(
                    f"its part {part} is there as a pickle only ({pickled[0]}): loading it could "
                    "run code"
                    if pickled
                    else f"its part {part} has no weights"
                )
    order: tuple[str | None, ...] = ("fp16", "bf16", None)
    if variant is not None:
        order = (None if variant == "plain" else variant,)
    known, found = folders.choose(weights.values(), order)
    if not known or (variant is not None and found != order[0]):
        there = sorted({str(v or "plain") for variants in weights.values() for v in variants})
        raise PullError(f"there is no variant {variant!r} of it; there is {', '.join(there)}")
    for part, variants in weights.items():
        chosen += [f"{part}/{file}" for file in folders.weight_files_of(variants, found)]
    return chosen


def _fetch(repository: str, commit: str, file: RepoSibling, folder: Path) -> None:
    """Download the missing part of one file.

    The library's `snapshot_download` starts a file from the beginning after an interruption, and
    checkpoints are single files of many gigabytes.
    """
    path, size = folder / file.rfilename, file.size or 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as opened:
        if opened.tell() < size:
            http_get(
                hf_hub_url(repository, file.rfilename, revision=commit),
                opened,
                resume_size=opened.tell(),
                headers=build_hf_headers(),
                expected_size=size,
                displayed_filename=file.rfilename,
            )
            opened.flush()
            os.fsync(opened.fileno())
    intact = path.stat().st_size == size
    if intact and file.lfs is not None:  # the hub has no digest of small files
        with path.open("rb") as opened:
            intact = hashlib.file_digest(opened, "sha256").hexdigest() == file.lfs.sha256
    if not intact:
        path.unlink()
        raise PullError(f"{file.rfilename} arrived damaged; run the same command again")


def _explain(error: Exception, order: Download) -> str:
    """What went wrong, and what to do."""
    lines = (line for line in str(error).splitlines() if line.strip())
    first_line = next(lines, type(error).__name__)
    match error:
        case GatedRepoError():
            return (
                f"{order.repository} is gated: accept its terms on the hub, then set HF_TOKEN to a "
                "token of that account"
            )
        case RevisionNotFoundError():
            return f"{order.repository} has no revision {order.revision!r}"
        case RepositoryNotFoundError():
            return (
                f"there is no repository {order.repository} on the hub, or it is private and "
                "HF_TOKEN is not of an account that may see it"
            )
        case HFValidationError():
            return f"{order.repository!r} is no hub id; it looks like owner/name"
        case Timeout():
            return "this model is being pulled already"
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set, so the hub is not asked"
        case HfHubHTTPError() | EntryNotFoundError():
            return f"the hub answered {first_line}; run the same command again later"
        case httpx2.HTTPError():
            return f"the hub cannot be reached ({first_line}); run the same command again later"
        case UnusableError():
            return str(error)
        case OSError(errno=errno.ENOSPC):
            return "the disk is full; what has arrived is kept for the next try"
    return f"{first_line}; run the same command again"
