"""Downloads from Hugging Face: the files from which a model is loaded, completely or not at all."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants, hf_hub_url
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
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # made late
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from darkroom.catalog import checkpoints, downloads, families, folders, model_spec, single_files
from darkroom.catalog.downloads import (
    ENDINGS,
    GIB,
    MAX_JSON_BYTES,
    UNFINISHED,
    HubError,
    Plan,
    PullError,
    Wanted,
)
from darkroom.catalog.gguf_files import GGUF
from darkroom.catalog.weight_files import SAFETENSORS, UnusableError, read_json
from darkroom.errors import message

SINGLE = (SAFETENSORS, GGUF)  # of models that are one file
PLAIN_FILES = (".json", ".txt", ".model")  # of a model beside its weights
HEADS_AT_ONCE = 8

_PAGE = re.compile(
    r"/(?P<repository>[^/]+/[^/]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/]+)(?:/(?P<file>.+))?)?/?"
)

Files = Mapping[str, RepoSibling]  # by path within the repository


@dataclass(frozen=True)
class Order:
    """What to download of a repository.

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


def order(wanted: Wanted) -> Order | None:
    """What a source asks for; None if it is the address of something else.

    It is `owner/name`, `owner/name:file`, or the address of a repository or file on the hub.
    """
    if "://" not in wanted.source:
        repository, _, named = wanted.source.partition(":")
        return Order(repository, named or None, wanted.revision, wanted.name, wanted.variant)
    parts = urlsplit(wanted.source)
    found = _PAGE.fullmatch(unquote(parts.path))
    if parts.netloc != urlsplit(constants.ENDPOINT).netloc or found is None:
        return None
    file: str | None = found["file"]
    if file is not None and not file.endswith((*SINGLE, *folders.PICKLES)):
        file = None  # a page within the repository
    revision = wanted.revision or found["revision"]
    return Order(found["repository"], file, revision, wanted.name, wanted.variant)


@dataclass(frozen=True)
class Repository:
    """A download of a model's files from a repository, in one commit of it."""

    order: Order
    commit: str
    chosen: Files
    plan: Plan
    reserve: int

    def write_heads(self, folder: Path) -> None:
        root = folder / self.plan.target.name

        def write(file: RepoSibling) -> None:
            path = root if self.order.file is not None else root / file.rfilename
            if path.suffix in SINGLE:
                downloads.write_head(path, file.size or 0, lambda size: self._read(file, size))
                return
            small = path.suffix == ".json" and (file.size or 0) <= MAX_JSON_BYTES
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._read(file, MAX_JSON_BYTES) if small else b"")

        with _explained(self.order), ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
            list(pool.map(write, self.chosen.values()))

    def _read(self, file: RepoSibling, size: int) -> bytes:
        return _read_start(self.order.repository, self.commit, file.rfilename, size)

    def fetch(self, echo: Callable[[str], None]) -> Path:
        target = self.plan.target
        lock = target.parent / f"{UNFINISHED}{self.plan.name}.lock"
        with _explained(self.order):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, blocking=False):
                self._fetch(echo)
        return target

    def _fetch(self, echo: Callable[[str], None]) -> None:
        workplace = self.plan.unfinished
        unfinished = workplace / self.commit  # files of another commit do not belong to this one
        echo(
            f"{self.order.repository}: {self.plan.files} files, {self.plan.total_bytes / GIB:.2f} "
            "GiB"
        )
        for path in workplace.rglob("*") if workplace.is_dir() else ():
            inside = path.is_relative_to(unfinished)
            if path.is_file() and not (
                inside and path.relative_to(unfinished).as_posix() in self.chosen
            ):
                path.unlink()  # from a pull that asked for another variant or commit
        missing = self.plan.total_bytes - downloads.size_of(unfinished)
        downloads.check_room(missing, self.plan.target.parent, self.reserve)
        for file in self.chosen.values():
            _fetch(self.order.repository, self.commit, file, unfinished)
        arrived = unfinished if self.order.file is None else unfinished / self.order.file
        try:
            check(arrived)
        except UnusableError as error:
            shutil.rmtree(workplace)
            raise downloads.unusable(str(error)) from None
        arrived.rename(self.plan.target)
        shutil.rmtree(workplace, ignore_errors=True)


def look_up(order: Order, models_dir: Path, reserve: int = 0) -> Repository:
    """Plan a download into `models_dir`. Asks the hub; writes nothing.

    Args:
        order: what to download.
        models_dir: the folder of models; may be missing.
        reserve: bytes of the disk that stay free.

    Raises:
        PullError: it cannot be downloaded.
    """
    name = order.name or PurePosixPath(order.file or order.repository).name
    ending = PurePosixPath(order.file or "").suffix
    ending = ending if ending in SINGLE else ""
    name = name.removesuffix(ending)
    downloads.check_name(name, models_dir, ENDINGS)
    with _explained(order):
        info = HfApi().model_info(order.repository, revision=order.revision, files_metadata=True)
        commit = info.sha or ""
        if re.fullmatch(r"[0-9a-f]{40,64}", commit) is None:
            raise PullError(f"the hub does not say which commit of {order.repository} this is")
        siblings = info.siblings or ()
        there = {file.rfilename: file for file in siblings if _stays_inside(file.rfilename)}
        chosen = _choose(order, there, commit)
    source = order.repository if order.file is None else f"{order.repository}:{order.file}"
    plan = Plan(
        pinned=Wanted(source, name, commit, order.variant),
        kind="models",
        name=name,
        title=source,
        target=models_dir / f"{name}{ending}",
        unfinished=models_dir / f"{UNFINISHED}{name}",
        files=len(chosen),
        total_bytes=sum(file.size or 0 for file in chosen.values()),
    )
    return Repository(replace(order, name=name), commit, chosen, plan, reserve)


def check(path: Path) -> None:
    """Raise `UnusableError` for what is no model; a network without its other parts is one."""
    if path.is_dir():
        folders.check(path, model_spec.examine(path).family)
    else:
        check_single(path)


def check_single(path: Path) -> None:
    """Raise `UnusableError` for a file that is no checkpoint, nor a network of one."""
    header = single_files.read_header(path)
    if single_files.recognise(header, path.stem) is None:
        checkpoints.recognise(header, path.name)


def _stays_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _choose(order: Order, there: Files, commit: str) -> Files:
    """The files to download. `PullError` says what else the repository offers."""
    repository, file = order.repository, order.file
    singles = sorted(name for name in there if name.endswith(SINGLE) and "/" not in name)
    offer = f"; there is {', '.join(singles)}" if singles else ""
    if file is not None:
        if file.endswith(folders.PICKLES):
            raise PullError(
                message(
                    "pull_pickled",
                    "{file} is pickled: loading it could run code. Look for a safetensors one",
                    file=file,
                )
            )
        if file not in there or not file.endswith(SINGLE):
            raise PullError(
                message(
                    "pull_no_file",
                    "{repository} has no checkpoint {file}{offer}",
                    repository=repository,
                    file=file,
                    offer=offer,
                )
            )
        return {file: there[file]}
    if folders.INDEX in there:
        index = _read_index(repository, commit)
        return {name: there[name] for name in choose(there, index, order.variant)}
    if singles:
        raise PullError(
            message(
                "pull_name_a_file",
                "{repository} is not in the diffusers format{offer}; pull one with "
                "{repository}:{first}",
                repository=repository,
                offer=offer,
                first=singles[0],
            )
        )
    pickled = [name for name in there if name.endswith(folders.PICKLES)]
    if pickled:
        raise PullError(
            message(
                "pull_only_pickles",
                "{repository} holds pickles only ({file}): loading one could run code",
                repository=repository,
                file=pickled[0],
            )
        )
    raise PullError(
        message(
            "pull_no_model",
            "{repository} holds no model in the diffusers format",
            repository=repository,
        )
    )


def _read_index(repository: str, commit: str) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / folders.INDEX
        path.write_bytes(_read_start(repository, commit, folders.INDEX, MAX_JSON_BYTES))
        return read_json(path)


def choose(files: Iterable[str], index: Mapping[str, Any], variant: str | None) -> list[str]:
    """Those of a repository's files from which a model is loaded, by its `model_index.json`.

    Raises:
        PullError: the model could not be used here, or has no such variant.
    """
    cls = index.get("_class_name")
    family = families.find(cls) if isinstance(cls, str) else None
    if family is None:
        raise PullError(
            message(
                "pull_not_served",
                "{kind} is not served: {reason}",
                kind=str(cls),
                reason=families.why_not(str(cls)),
            )
        )
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
        raise no_variant(variant, there)
    for part, variants in weights.items():
        chosen += [f"{part}/{file}" for file in folders.weight_files_of(variants, found)]
    return chosen


def no_variant(variant: str | None, there: Iterable[str]) -> PullError:
    """The error for a variant that is not published."""
    return PullError(
        message(
            "pull_no_variant",
            "there is no variant {variant!r} of it; there is {others}",
            variant=str(variant),
            others=", ".join(there),
        )
    )


def _read_start(repository: str, commit: str, file: str, size: int) -> bytes:
    """The first bytes of a file, so many or all; raises as the hub's client."""
    url = hf_hub_url(repository, file, revision=commit)
    headers = {**build_hf_headers(), "Range": f"bytes=0-{size - 1}", "Accept-Encoding": "identity"}
    found = b""
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
        if answer.is_error:
            answer.read()  # what it says is part of the error
        hf_raise_for_status(answer)
        for part in answer.iter_raw():
            found += part
            if len(found) >= size:  # a host that sends whole files only
                break
    return found[:size]


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
        raise downloads.damaged(file.rfilename)


@contextmanager
def _explained(order: Order) -> Iterator[None]:
    """Context that turns the hub's errors into `PullError`s."""
    try:
        yield
    except (
        OSError,
        httpx2.HTTPError,
        EntryNotFoundError,
        HFValidationError,
        UnusableError,
    ) as error:
        raise _explain(error, order) from None


def _explain(error: Exception, order: Order) -> PullError:
    """What went wrong, and what to do."""
    repository = order.repository
    match error:
        case GatedRepoError():
            return PullError(
                message(
                    "pull_gated",
                    "{repository} is gated: accept its terms on the hub, then set HF_TOKEN on the "
                    "server to a token of that account",
                    repository=repository,
                )
            )
        case RevisionNotFoundError():
            return PullError(
                message(
                    "pull_no_revision",
                    "{repository} has no revision {revision!r}",
                    repository=repository,
                    revision=str(order.revision),
                )
            )
        case RepositoryNotFoundError():
            return PullError(
                message(
                    "pull_no_repository",
                    "there is no repository {repository} on the hub, or it is private and HF_TOKEN "
                    "is not of an account that may see it",
                    repository=repository,
                )
            )
        case HFValidationError():
            return PullError(
                message(
                    "pull_no_id",
                    "{repository!r} is no hub id; it looks like owner/name",
                    repository=repository,
                )
            )
        case Timeout():
            return PullError(downloads.RUNNING)
        case OfflineModeIsEnabled():
            return PullError("HF_HUB_OFFLINE is set, so the hub is not asked")
        case HfHubHTTPError() | EntryNotFoundError():
            reason = downloads.why(error)
            return HubError(
                message("hub_answered", "the hub answered {reason}; try again later", reason=reason)
            )
        case httpx2.HTTPError():
            return downloads.away(downloads.why(error))
        case UnusableError():
            return PullError(str(error))
    return downloads.explain(error)
