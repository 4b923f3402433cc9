"""`darkroom models pull`: downloads a model from Hugging Face, completely or not at all."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path, PurePosixPath

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

from darkroom.catalog import checkpoints, folders, model_spec, remote
from darkroom.catalog.models import SAFETENSORS
from darkroom.catalog.reading import UnusableError, read_header, read_json
from darkroom.catalog.remote import Download, PullError, Remote, Remotes

GIB = 2**30


def pull(order: Download, models_dir: Path, echo: Callable[[str], None]) -> Path:
    """Download a model. An interrupted download continues at the byte where it stopped.

    Args:
        order: what to download.
        models_dir: created if need be.
        echo: prints progress messages.

    Returns:
        The path of the model.

    Raises:
        PullError: the model was not added.
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


def _pull(order: Download, workplace: Path, target: Path, echo: Callable[[str], None]) -> None:
    info = HfApi().model_info(order.repository, revision=order.revision, files_metadata=True)
    there = {
        sibling.rfilename: Remote(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or ()
        if _stays_inside(sibling.rfilename)
    }
    commit = info.sha or ""
    if re.fullmatch(r"[0-9a-f]{40,64}", commit) is None:
        raise PullError(f"the hub does not say which commit of {order.repository} this is")
    unfinished = workplace / commit  # files of another commit do not belong to this one
    chosen = _choose(order, there, commit, unfinished)
    total = sum(file.size_bytes for file in chosen.values())
    echo(f"{order.repository}: {len(chosen)} files, {total / GIB:.2f} GiB")
    for path in unfinished.rglob("*") if unfinished.is_dir() else ():
        if path.is_file() and path.relative_to(unfinished).as_posix() not in chosen:
            path.unlink()  # from a pull that asked for another variant
    _check_room(total, unfinished, target.parent)
    for name, file in chosen.items():
        _fetch(order, commit, name, file, unfinished / name)
    try:
        _check(order, unfinished)
    except UnusableError as error:
        shutil.rmtree(workplace)
        raise PullError(f"it arrived and cannot be used: {error}") from None
    (unfinished if order.file is None else unfinished / order.file).rename(target)
    shutil.rmtree(workplace, ignore_errors=True)


def _choose(order: Download, there: Remotes, commit: str, unfinished: Path) -> Remotes:
    if order.file is not None:
        return {order.file: remote.single(order, order.file, there)}
    if folders.INDEX not in there:
        raise PullError(remote.why_no_model(order, there))
    index = unfinished / folders.INDEX
    _fetch(order, commit, folders.INDEX, there[folders.INDEX], index)
    return {file: there[file] for file in remote.choose(there, read_json(index), order.variant)}


def _check_room(total_bytes: int, unfinished: Path, models_dir: Path) -> None:
    here = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
    needed, free = total_bytes - here, shutil.disk_usage(models_dir).free
    if needed > free:
        raise PullError(f"it needs {needed / GIB:.2f} GiB more, and {free / GIB:.2f} GiB are free")


def _fetch(order: Download, commit: str, name: str, file: Remote, path: Path) -> None:
    """Download the missing part of one file.

    The library's `snapshot_download` starts a file from the beginning after an interruption, and
    checkpoints are single files of many gigabytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as opened:
        if opened.tell() < file.size_bytes:
            http_get(
                hf_hub_url(order.repository, name, revision=commit),
                opened,
                resume_size=opened.tell(),
                headers=build_hf_headers(),
                expected_size=file.size_bytes,
                displayed_filename=name,
            )
            opened.flush()
            os.fsync(opened.fileno())
    if path.stat().st_size != file.size_bytes or not _is_intact(path, file):
        path.unlink()
        raise PullError(f"{name} arrived damaged; run the same command again")


def _is_intact(path: Path, file: Remote) -> bool:
    if file.sha256 is None:
        return True
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _stays_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _check(order: Download, unfinished: Path) -> None:
    """Check that the downloaded model can be used.

    Raises:
        UnusableError: it cannot.
    """
    if order.file is not None:
        checkpoints.recognise(unfinished / order.file)
    else:
        folders.check(unfinished, model_spec.examine(unfinished).family, read_header)


@contextmanager
def _named_errors(order: Download) -> Iterator[None]:
    """Context that turns errors of the download into `PullError` with advice."""
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
