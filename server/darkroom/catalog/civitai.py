"""Downloads from Civitai: one file of a model's version, completely or not at all.

A file arrives in the folder of its kind, with what Civitai says of it beside it. Its API is
described at https://developer.civitai.com/docs/api/public-rest.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from filelock import FileLock, Timeout

from darkroom.catalog.hub import GIB, PullError, check_room, check_single
from darkroom.catalog.weight_files import (
    SAFETENSORS,
    UnusableAddonError,
    UnusableError,
    read_addon_header,
)

PREFIX = "civitai:"
# What Civitai calls a kind → the folder in the data folder.
FOLDERS: Mapping[str, str] = {
    "Checkpoint": "models",
    **dict.fromkeys(("LORA", "LoCon", "DoRA"), "loras"),
    "TextualInversion": "embeddings",
    "Upscaler": "upscalers",
    "VAE": "vae",
}
WEIGHTS = ("Model", "Pruned Model", "VAE")  # types of files that hold some
HALF = ("fp16", "bf16")  # which lose nothing on a GPU
TRIES = 5  # in a row that bring nothing
TIMEOUT_S = 60.0
MAX_REDIRECTS = 5
PLAIN = {"Accept-Encoding": "identity"}  # ranges are of the bytes that come
MAX_ANSWER_BYTES = 16 * 2**20

_PLACE = re.compile(r"(?P<model>\d{1,12})?(?:@(?P<version>\d{1,12}))?")
_DOWNLOAD = re.compile(r"/api/download/models/(?P<version>\d{1,12})")
_PAGE = re.compile(r"/models/(?P<model>\d{1,12})(?:/.*)?")

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A model on Civitai, or one of its versions; the newest if that is None."""

    model: str | None
    version: str | None


@dataclass(frozen=True)
class Civitai:
    """The hub, and where its files go.

    Attributes:
        url: of the hub, without a path.
        token: of an account there, for files that need one; or None.
        data_dir: holds the folders in `FOLDERS`.
    """

    url: str
    token: str | None
    data_dir: Path


def place(text: str, url: str) -> Place | None:
    """The place that a text names, or None if it speaks of something else.

    It is `civitai:MODEL`, `civitai:MODEL@VERSION`, `civitai:@VERSION`, or the address of a model's
    page or of a download on the hub at `url`.
    """
    if text.startswith(PREFIX):
        found = _PLACE.fullmatch(text.removeprefix(PREFIX))
        return Place(found["model"], found["version"]) if found and any(found.groups()) else None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or parts.netloc != urlsplit(url).netloc:
        return None
    if found := _DOWNLOAD.fullmatch(parts.path):
        return Place(None, found["version"])
    if found := _PAGE.fullmatch(parts.path):
        version = parse_qs(parts.query).get("modelVersionId", [""])[0]
        return Place(found["model"], version if version.isdecimal() else None)
    return None


def pull(
    hub: Civitai, asked: Place, name: str | None, variant: str | None, echo: Callable[[str], None]
) -> Path:
    """Download a version's file and return its path. `echo` prints progress.

    An interrupted download continues at the byte where it stopped.

    Args:
        hub: which one.
        asked: the model or version.
        name: of the file here, without its ending; None for its own.
        variant: `fp16`, `bf16`, `fp32` and so on; None for one that loses nothing on a GPU.
        echo: prints a line.

    Raises:
        PullError: nothing was added.
    """
    try:
        with httpx2.Client(timeout=TIMEOUT_S) as http:
            version, kind = _look_up(hub, http, asked)
            return _pull(hub, http, version, kind, name, variant, echo)
    except (OSError, httpx2.HTTPError, Timeout) as error:
        raise PullError(_explain(error)) from None


def _look_up(hub: Civitai, http: httpx2.Client, asked: Place) -> tuple[Json, str]:
    """A version as the hub describes it, and the kind of its model."""
    if asked.version is not None:
        found = _ask(hub, http, f"/api/v1/model-versions/{asked.version}")
        model = found.get("model")
        return found, str(model.get("type")) if isinstance(model, dict) else ""
    found = _ask(hub, http, f"/api/v1/models/{asked.model}")
    versions = found.get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise PullError(f"model {asked.model} has no version that can be downloaded")
    about = {"name": found.get("name"), "type": found.get("type")}
    return {"model": about, **versions[0]}, str(found.get("type"))


def _ask(hub: Civitai, http: httpx2.Client, path: str) -> Json:
    """A JSON object that the hub's API answers."""
    with _stream(hub, http, hub.url + path, {}) as answer:
        data = b""
        for part in answer.iter_raw():
            data += part
            if len(data) > MAX_ANSWER_BYTES:
                raise PullError("the hub's answer is too long")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PullError(f"{urlsplit(hub.url).netloc} does not answer as Civitai does")
    return found


def _pull(
    hub: Civitai,
    http: httpx2.Client,
    version: Json,
    kind: str,
    name: str | None,
    variant: str | None,
    echo: Callable[[str], None],
) -> Path:
    if kind not in FOLDERS:
        raise PullError(f"it is a {kind or 'model of an unknown kind'}, which is not served here")
    file = _choose(version, variant)
    folder = hub.data_dir / FOLDERS[kind]
    name = name or str(file.get("name", "")).removesuffix(SAFETENSORS)
    if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise PullError(f"{name!r} cannot be a file's name here; choose another with --name")
    target = folder / f"{name}{SAFETENSORS}"
    if target.exists():
        raise PullError(f"there is {target} already; remove it or choose a --name")
    sha256 = str((file.get("hashes") or {}).get("SHA256", "")).lower()
    if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise PullError(f"the hub publishes no SHA-256 of {file.get('name')}, so it is not taken")
    folder.mkdir(parents=True, exist_ok=True)
    # A download is known by what will be in it: another one under this name begins anew.
    unfinished = folder / f".pull-{name}-{sha256[:16]}.part"
    with FileLock(folder / f".pull-{name}.lock", blocking=False):
        _check_room(file, unfinished, echo)
        with unfinished.open("ab") as opened:
            _fetch(hub, http, _address(hub, file, version), opened, echo)
            opened.flush()
            os.fsync(opened.fileno())
        with unfinished.open("rb") as opened:
            arrived = hashlib.file_digest(opened, "sha256").hexdigest()
        if arrived != sha256:
            unfinished.unlink()
            raise PullError(f"{file.get('name')} arrived damaged; run the same command again")
        try:
            check: Callable[[Path], object] = (
                check_single if kind == "Checkpoint" else read_addon_header
            )
            check(unfinished)
        except (UnusableError, UnusableAddonError) as error:
            unfinished.unlink()
            reason = str(error).replace(unfinished.name, target.name)
            raise PullError(f"it arrived and cannot be used: {reason}") from None
        about = json.dumps(version, ensure_ascii=False)
        target.with_name(f"{name}.civitai.info").write_text(about, encoding="utf-8")
        unfinished.rename(target)
    return target


def _choose(version: Json, variant: str | None) -> Json:
    """The file of a version that is read: safetensors, in half precision if there is that."""
    files = [each for each in version.get("files") or () if isinstance(each, dict)]
    weights = [each for each in files if each.get("type") in WEIGHTS]
    safe = [each for each in weights if str(each.get("name", "")).endswith(SAFETENSORS)]
    if not safe:
        held = ", ".join(str(each.get("name")) for each in weights) or "no weights"
        raise PullError(f"this version holds {held}, and no safetensors file")
    kinds = [str((each.get("metadata") or {}).get("fp")) for each in safe]
    if variant is not None and variant not in kinds:
        raise PullError(f"there is no variant {variant!r} of it; there is {', '.join(kinds)}")
    pairs = [(each, fp) for each, fp in zip(safe, kinds, strict=True) if variant in (None, fp)]
    half = [each for each, fp in pairs if fp in HALF]
    offered = half or [each for each, _ in pairs]
    return min(offered, key=lambda each: (not each.get("primary"), each.get("sizeKB") or 0))


def _address(hub: Civitai, file: Json, version: Json) -> str:
    """Where a file is downloaded: a path of this hub's, whatever host the answer names."""
    parts = urlsplit(str(file.get("downloadUrl", "")))
    if not _DOWNLOAD.fullmatch(parts.path):
        return f"{hub.url}/api/download/models/{version.get('id')}"
    return f"{hub.url}{parts.path}{'?' if parts.query else ''}{parts.query}"


def _check_room(file: Json, unfinished: Path, echo: Callable[[str], None]) -> None:
    """Say how large a file is; `PullError` if it does not fit on the disk."""
    size = file.get("sizeKB")
    total = int(size * 1024) if isinstance(size, int | float) else 0
    here = unfinished.stat().st_size if unfinished.exists() else 0
    echo(f"{file.get('name')}: {total / GIB:.2f} GiB" + (", goes on" if here else ""))
    check_room(total - here, unfinished.parent)


def _fetch(
    hub: Civitai, http: httpx2.Client, url: str, opened: BinaryIO, echo: Callable[[str], None]
) -> None:
    """Download what is missing of a file; goes on after interruptions that brought something."""
    tried, told = 0, -1
    while True:
        before = opened.tell()
        try:
            headers = {"Range": f"bytes={before}-"} if before else {}
            with _stream(hub, http, url, headers) as answer:
                if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    return  # all of it is here; the hash tells
                if before and answer.status_code != HTTPStatus.PARTIAL_CONTENT:
                    opened.truncate(0)  # this host sends whole files only
                    opened.seek(0)
                length = int(answer.headers.get("content-length", 0))
                total = opened.tell() + length
                for part in answer.iter_raw():
                    opened.write(part)
                    percent = 100 * opened.tell() // total if total else 0
                    if percent // 5 > told // 5:
                        echo(f"  {percent} %")
                        told = percent
            if not length or opened.tell() >= total:
                return
        except (httpx2.TransportError, httpx2.StreamError):
            if opened.tell() == before and tried + 1 >= TRIES:
                raise
        tried = 0 if opened.tell() > before else tried + 1
        if tried >= TRIES:
            raise PullError("the download was cut off; run the same command again to go on")


@contextmanager
def _stream(
    hub: Civitai, http: httpx2.Client, url: str, headers: Mapping[str, str]
) -> Iterator[httpx2.Response]:
    """The answer of the hub, or of the host to which it redirects; that is not told the token.

    Raises:
        PullError: it is refused; says what to do.
    """
    ours = urlsplit(hub.url)
    for _ in range(MAX_REDIRECTS):
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.scheme != ours.scheme:
            raise PullError(f"the hub redirects to {parts.scheme}, which is not followed")
        is_hub = (parts.scheme, parts.netloc) == (ours.scheme, ours.netloc)
        token = {"Authorization": f"Bearer {hub.token}"} if hub.token and is_hub else {}
        with http.stream("GET", url, headers={**PLAIN, **headers, **token}) as answer:
            if answer.has_redirect_location:
                url = urljoin(url, answer.headers["location"])
                if urlsplit(url).path.startswith("/login"):
                    raise PullError(_refused(HTTPStatus.UNAUTHORIZED, hub))
                continue
            refusals = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
            if answer.status_code in refusals:
                raise PullError(_refused(answer.status_code, hub))
            whole = answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            if not whole and not answer.is_success:
                raise PullError(
                    f"the hub answered {answer.status_code}; run the same command again later"
                )
            yield answer
            return
    raise PullError("the hub redirects without end")


def _refused(status: int, hub: Civitai) -> str:
    where = urlsplit(hub.url).netloc
    if status == HTTPStatus.NOT_FOUND:
        return f"{where} has no such model or version"
    if hub.token is None:
        return (
            f"{where} gives this file to accounts only: make an API key in your account's settings "
            "there, and set models.civitai_token (DARKROOM_MODELS__CIVITAI_TOKEN)"
        )
    return (
        f"{where} refuses this file to the account of models.civitai_token: the key may be old, or "
        "the file is in early access, or its author's terms must be accepted on the page first"
    )


def _explain(error: Exception) -> str:
    match error:
        case Timeout():
            return "this file is being pulled already"
        case httpx2.HTTPError():
            reason = str(error) or type(error).__name__
            return f"the hub cannot be reached ({reason}); run the same command again later"
        case OSError(errno=errno.ENOSPC):
            return "the disk is full; what has arrived is kept for the next try"
    return f"{error}; run the same command again"
