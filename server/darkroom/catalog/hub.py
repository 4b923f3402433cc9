"""`darkroom models pull`: a model from a hub into the models directory, whole or not at all."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
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
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # made late

from darkroom.catalog import anatomy, checkpoints, folders, pipelines, weights
from darkroom.catalog.anatomy import FAMILIES
from darkroom.catalog.models import SAFETENSORS
from darkroom.catalog.reading import UnusableError, read_header, read_json

GIB = 2**30

# What a folder is loaded from, beside weights: JSON, and vocabularies.
PLAIN_FILES = (".json", ".txt", ".model")


class PullError(Exception):
    """A model cannot be pulled; says why and what to do."""


@dataclass(frozen=True)
class Order:
    """What to pull.

    Attributes:
        repository: `owner/name` on the hub.
        file: a single-file checkpoint in it; None for a repository in the diffusers format.
        revision: branch, tag or commit; None for the main branch.
        name: what the model is called here; None for the repository's or file's name.
        variant: of the weights; None for the smallest that loses nothing on a GPU, `plain` for
            those without a variant.
    """

    repository: str
    file: str | None = None
    revision: str | None = None
    name: str | None = None
    variant: str | None = None


@dataclass(frozen=True)
class Remote:
    """A file on the hub.

    Attributes:
        sha256: of its content; None where the hub does not say, as for small files.
    """

    size_bytes: int
    sha256: str | None = None


Remotes = Mapping[str, Remote]  # by path within the repository


def pull(order: Order, models_dir: Path, echo: Callable[[str], None]) -> Path:
    """Fetch a model. Asked for again, an interrupted pull goes on at the byte where it was.

    Args:
        order: what.
        models_dir: made if need be.
        echo: told what is going on.

    Returns:
        Where the model lies.

    Raises:
        PullError: nothing was added to the models.
    """
    name = order.name or PurePosixPath(order.file or order.repository).name
    if order.file is not None:
        name = name.removesuffix(SAFETENSORS)
    if name != Path(name).name or name.startswith("."):
        raise PullError(f"{name!r} cannot be a model's name; choose another with --name")
    target = models_dir / (name if order.file is None else f"{name}{SAFETENSORS}")
    if target.exists():
        raise PullError(f"there is a model {name!r} already; remove {target} or choose a --name")
    with _named_errors(order):
        models_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(models_dir / f".pull-{name}.lock", blocking=False):
            _pull(order, models_dir / f".pull-{name}", target, echo)
    return target


def _pull(order: Order, workplace: Path, target: Path, echo: Callable[[str], None]) -> None:
    info = HfApi().model_info(order.repository, revision=order.revision, files_metadata=True)
    there = {
        sibling.rfilename: Remote(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or ()
        if _stays_inside(sibling.rfilename)
    }
    commit = str(info.sha)
    unfinished = workplace / commit  # what has arrived of another commit does not go with this one
    chosen = _choose(order, there, commit, unfinished)
    total = sum(remote.size_bytes for remote in chosen.values())
    echo(f"{order.repository}: {len(chosen)} files, {total / GIB:.2f} GiB")
    for path in unfinished.rglob("*") if unfinished.is_dir() else ():
        if path.is_file() and path.relative_to(unfinished).as_posix() not in chosen:
            path.unlink()  # from a pull that asked for another variant
    _check_room(total, unfinished, target.parent)
    for file, remote in chosen.items():
        _fetch(order, commit, file, remote, unfinished / file)
    try:
        _check(order, unfinished)
    except UnusableError as error:
        shutil.rmtree(workplace)
        raise PullError(f"it arrived and cannot be used: {error}") from None
    (unfinished if order.file is None else unfinished / order.file).rename(target)
    shutil.rmtree(workplace, ignore_errors=True)


# --- what to fetch -------------------------------------------------------------------------


def _choose(order: Order, there: Remotes, commit: str, unfinished: Path) -> Remotes:
    if order.file is not None:
        return {order.file: _single(order, order.file, there)}
    if folders.INDEX not in there:
        raise PullError(_no_index(order, there))
    index = unfinished / folders.INDEX
    _fetch(order, commit, folders.INDEX, there[folders.INDEX], index)
    return {file: there[file] for file in choose(there, read_json(index), order.variant)}


def _single(order: Order, file: str, there: Remotes) -> Remote:
    if file.endswith(weights.PICKLES):
        raise PullError(f"{file} is pickled: loading it could run code. Look for a safetensors one")
    if file not in there or not file.endswith(SAFETENSORS):
        raise PullError(f"{order.repository} has no checkpoint {file}{_offer(there)}")
    return there[file]


def _no_index(order: Order, there: Remotes) -> str:
    singles = _checkpoints(there)
    pickled = [file for file in there if file.endswith(weights.PICKLES)]
    if singles:
        return (
            f"{order.repository} is not in the diffusers format{_offer(there)}; "
            f"pull one with {order.repository}:{singles[0]}"
        )
    if pickled:
        return f"{order.repository} holds pickles only ({pickled[0]}): loading one could run code"
    return f"{order.repository} holds no model in the diffusers format"


def _checkpoints(there: Remotes) -> list[str]:
    return sorted(file for file in there if file.endswith(SAFETENSORS) and "/" not in file)


def _offer(there: Remotes) -> str:
    found = _checkpoints(there)
    return f"; there is {', '.join(found)}" if found else ""


def choose(files: Iterable[str], index: Mapping[str, Any], variant: str | None) -> list[str]:
    """The files of a repository that a model is loaded from.

    Args:
        files: all there are.
        index: `model_index.json`.
        variant: see `Order`.

    Raises:
        PullError: it could not be used here.
    """
    cls = index.get("_class_name")
    if not isinstance(cls, str) or (cls not in FAMILIES and pipelines.find(cls) is None):
        raise PullError(f"{cls} is not served: {pipelines.why_not(str(cls))}")
    paths = [PurePosixPath(file) for file in files]
    chosen = [folders.INDEX]
    weighing: dict[str, weights.Variants] = {}
    for part, value in index.items():
        match value:
            case [str(), str(part_class)] if cls not in FAMILIES or part not in folders.UNUSED:
                inside = [path.name for path in paths if path.parent == PurePosixPath(part)]
            case _:
                continue
        chosen += [
            f"{part}/{file}"
            for file in inside
            if file.endswith(PLAIN_FILES) and ".index." not in file
        ]
        if "config.json" in inside and "Tokenizer" not in part_class:
            weighing[part] = _weights(part, inside)
    order: tuple[str | None, ...] = ("fp16", "bf16", None)
    if variant is not None:
        order = (None if variant == "plain" else variant,)
    known, found = weights.choose(weighing.values(), order)
    if not known or (variant is not None and found != order[0]):
        there = sorted({str(v or "plain") for part in weighing.values() for v in part})
        raise PullError(f"there is no variant {variant!r} of it; there is {', '.join(there)}")
    for part, variants in weighing.items():
        chosen += [f"{part}/{file}" for file in weights.names(variants, found)]
    return chosen


def _weights(part: str, inside: list[str]) -> weights.Variants:
    found = weights.variants(inside)
    if found:
        return found
    pickled = [file for file in inside if file.endswith(weights.PICKLES)]
    if pickled:
        raise PullError(
            f"its part {part} is there as a pickle only ({pickled[0]}): loading it could run code"
        )
    raise PullError(f"its part {part} has no weights")


# --- fetching ------------------------------------------------------------------------------


def _check_room(total_bytes: int, unfinished: Path, models_dir: Path) -> None:
    here = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
    needed, free = total_bytes - here, shutil.disk_usage(models_dir).free
    if needed > free:
        raise PullError(f"it needs {needed / GIB:.2f} GiB more, and {free / GIB:.2f} GiB are free")


def _fetch(order: Order, commit: str, file: str, remote: Remote, path: Path) -> None:
    """Fetch what is missing of one file.

    The hub's own `snapshot_download` begins a file anew when the process was interrupted in it,
    and checkpoints are single files of many gigabytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as opened:
        if opened.tell() < remote.size_bytes:
            http_get(
                hf_hub_url(order.repository, file, revision=commit),
                opened,
                resume_size=opened.tell(),
                headers=build_hf_headers(),
                expected_size=remote.size_bytes,
                displayed_filename=file,
            )
    if path.stat().st_size != remote.size_bytes or not _is_intact(path, remote):
        path.unlink()
        raise PullError(f"{file} arrived damaged; run the same command again")


def _is_intact(path: Path, remote: Remote) -> bool:
    if remote.sha256 is None:
        return True
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == remote.sha256


def _stays_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _check(order: Order, unfinished: Path) -> None:
    """See that what has arrived can be used.

    Raises:
        UnusableError: it cannot.
    """
    if order.file is not None:
        checkpoints.recognise(unfinished / order.file)
    else:
        folders.check(unfinished, anatomy.examine(unfinished).family, read_header)


@contextmanager
def _named_errors(order: Order) -> Iterator[None]:
    """What can go wrong between here and a hub, in words."""
    try:
        yield
    except GatedRepoError:
        raise PullError(
            f"{order.repository} is gated: accept its terms on the hub, then set HF_TOKEN to a "
            "token of that account"
        ) from None
    except RevisionNotFoundError:
        raise PullError(f"{order.repository} has no revision {order.revision!r}") from None
    except RepositoryNotFoundError:
        raise PullError(
            f"there is no repository {order.repository} on the hub, or it is private and HF_TOKEN "
            "is not of an account that may see it"
        ) from None
    except HFValidationError:
        raise PullError(f"{order.repository!r} is no hub id; it looks like owner/name") from None
    except Timeout:
        raise PullError("this model is being pulled already") from None
    except OfflineModeIsEnabled:
        raise PullError("HF_HUB_OFFLINE is set, so the hub is not asked") from None
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise PullError(
            f"the hub answered {_first_line(error)}; run the same command again later"
        ) from None
    except httpx2.HTTPError as error:
        raise PullError(
            f"the hub cannot be reached ({_first_line(error)}); run the same command again later"
        ) from None
    except UnusableError as error:
        raise PullError(str(error)) from None
    except OSError as error:
        if error.errno == ENOSPC:
            raise PullError("the disk is full; what has arrived is kept for the next try") from None
        raise PullError(f"{_first_line(error)}; run the same command again") from None


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
