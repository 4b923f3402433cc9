"""Downloads from Civitai: one file of a model's version, completely or not at all.

A file arrives in the folder of its kind, with what Civitai says of it beside it. Its API is
described at https://developer.civitai.com/docs/api/public-rest.
"""

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

from darkroom.catalog import downloads
from darkroom.catalog.downloads import GIB, UNFINISHED, HubError, Plan, PullError, Wanted
from darkroom.catalog.hub import check_single, no_variant
from darkroom.catalog.weight_files import (
    SAFETENSORS,
    UnusableAddonError,
    UnusableError,
    read_addon_header,
)
from darkroom.errors import Message, message

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


@dataclass(frozen=True)
class Version:
    """A download of one file of a model's version.

    Attributes:
        said: of the version, by the hub.
        file: of the file, by the hub.
        sha256: of the file, as it is published.
    """

    hub: Civitai
    said: Json
    file: Json
    sha256: str
    plan: Plan
    reserve: int

    def write_heads(self, folder: Path) -> None:
        path = folder / self.plan.target.name
        with _asking() as http:
            _, whole = self._read_start(http, 1)
            size = whole or self.plan.total_bytes  # the hub rounds what it says
            downloads.write_head(path, size, lambda wanted: self._read_start(http, wanted)[0])

    def _read_start(self, http: httpx2.Client, size: int) -> tuple[bytes, int]:
        """The first bytes of the file, and how many it has; 0 if the host does not say."""
        found = b""
        with _stream(self.hub, http, self._url, {"Range": f"bytes=0-{size - 1}"}) as answer:
            whole = answer.headers.get("content-range", "").rpartition("/")[2]
            for part in answer.iter_raw():
                found += part
                if len(found) >= size:  # a host that sends whole files only
                    break
        return found[:size], int(whole) if whole.isdecimal() else 0

    @property
    def _url(self) -> str:
        return _address(self.hub, self.file, self.said)

    def fetch(self, echo: Callable[[str], None]) -> Path:
        target, unfinished = self.plan.target, self.plan.unfinished
        lock = target.parent / f"{UNFINISHED}{self.plan.name}.lock"
        with _asking() as http:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, blocking=False):
                here = self.plan.here_bytes()
                size = f"{self.plan.total_bytes / GIB:.2f} GiB"
                echo(f"{self.file.get('name')}: {size}" + (", goes on" if here else ""))
                downloads.check_room(self.plan.total_bytes - here, target.parent, self.reserve)
                with unfinished.open("ab") as opened:
                    _fetch(self.hub, http, self._url, opened, echo)
                    opened.flush()
                    os.fsync(opened.fileno())
                self._check()
                about = json.dumps(self.said, ensure_ascii=False)
                described = target.with_name(f"{self.plan.name}.civitai.info")
                described.write_text(about, encoding="utf-8")
                unfinished.rename(target)
        return target

    def _check(self) -> None:
        """Raise `PullError`, and drop what has arrived, if it is not what was published."""
        unfinished = self.plan.unfinished
        with unfinished.open("rb") as opened:
            arrived = hashlib.file_digest(opened, "sha256").hexdigest()
        if arrived != self.sha256:
            unfinished.unlink()
            raise downloads.damaged(str(self.file.get("name")))
        try:
            check(unfinished, self.plan.kind)
        except PullError as error:
            unfinished.unlink()
            reason = str(error).replace(unfinished.name, self.plan.target.name)
            raise downloads.unusable(reason) from None


def check(path: Path, kind: str) -> None:
    """Raise `PullError` for a file that is not of the kind in whose folder it would be."""
    try:
        if kind == "models":
            check_single(path)
        else:
            read_addon_header(path)
    except (UnusableError, UnusableAddonError) as error:
        raise PullError(str(error)) from None


def look_up(
    hub: Civitai, asked: Place, name: str | None, variant: str | None, reserve: int = 0
) -> Version:
    """Plan the download of a version's file. Asks the hub; writes nothing.

    Args:
        hub: which one.
        asked: the model or version.
        name: of the file here, without its ending; None for its own.
        variant: `fp16`, `bf16`, `fp32` and so on; None for one that loses nothing on a GPU.
        reserve: bytes of the disk that stay free.

    Raises:
        PullError: it cannot be downloaded.
    """
    with _asking() as http:
        said, kind = _look_up(hub, http, asked)
    if kind not in FOLDERS:
        what = kind or "model of an unknown kind"
        raise PullError(message("pull_kind", "it is a {kind}, which is not served here", kind=what))
    file = _choose(said, variant)
    folder = hub.data_dir / FOLDERS[kind]
    name = name or str(file.get("name", "")).removesuffix(SAFETENSORS)
    endings = downloads.ENDINGS if FOLDERS[kind] == "models" else (SAFETENSORS,)
    downloads.check_name(name, folder, endings)
    sha256 = str((file.get("hashes") or {}).get("SHA256", "")).lower()
    if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise PullError(
            message(
                "pull_no_hash",
                "the hub publishes no SHA-256 of {file}, so it is not taken",
                file=str(file.get("name")),
            )
        )
    size = file.get("sizeKB")
    plan = Plan(
        pinned=Wanted(f"{PREFIX}@{said.get('id')}", name, None, variant),
        kind=FOLDERS[kind],
        name=name,
        title=_title(said),
        target=folder / f"{name}{SAFETENSORS}",
        # A download is known by what will be in it: another one under this name begins anew.
        unfinished=folder / f"{UNFINISHED}{name}-{sha256[:16]}.part",
        files=1,
        total_bytes=round(size * 1024) if isinstance(size, int | float) else 0,
    )
    return Version(hub, said, file, sha256, plan, reserve)


def _title(said: Json) -> str:
    """What the hub calls a version: the model's name, and its own."""
    model = said.get("model")
    names = (model.get("name") if isinstance(model, dict) else None, said.get("name"))
    return " ".join(" ".join(str(each).split()) for each in names if each)[:200]


@contextmanager
def _asking() -> Iterator[httpx2.Client]:
    """Context with a client of the hub, which turns errors into `PullError`s."""
    try:
        with httpx2.Client(timeout=TIMEOUT_S) as http:
            yield http
    except Timeout:
        raise PullError(downloads.RUNNING) from None
    except httpx2.HTTPError as error:
        raise downloads.away(downloads.why(error)) from None
    except OSError as error:
        raise downloads.explain(error) from None


def _look_up(hub: Civitai, http: httpx2.Client, asked: Place) -> tuple[Json, str]:
    """A version as the hub describes it, and the kind of its model."""
    if asked.version is not None:
        found = _ask(hub, http, f"/api/v1/model-versions/{asked.version}")
        model = found.get("model")
        return found, str(model.get("type")) if isinstance(model, dict) else ""
    found = _ask(hub, http, f"/api/v1/models/{asked.model}")
    versions = found.get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise PullError(
            message(
                "hub_no_version",
                "model {model} has no version that can be downloaded",
                model=str(asked.model),
            )
        )
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


def _choose(version: Json, variant: str | None) -> Json:
    """The file of a version that is read: safetensors, in half precision if there is that."""
    files = [each for each in version.get("files") or () if isinstance(each, dict)]
    weights = [each for each in files if each.get("type") in WEIGHTS]
    safe = [each for each in weights if str(each.get("name", "")).endswith(SAFETENSORS)]
    if not safe:
        held = ", ".join(str(each.get("name")) for each in weights) or "no weights"
        raise PullError(
            message(
                "pull_no_safetensors",
                "this version holds {held}, and no safetensors file",
                held=held,
            )
        )
    kinds = [str((each.get("metadata") or {}).get("fp")) for each in safe]
    if variant is not None and variant not in kinds:
        raise no_variant(variant, kinds)
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
            raise HubError(
                message("pull_cut_off", "the download was cut off; try again to go on from there")
            )


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
                raise HubError(
                    message(
                        "hub_answered",
                        "the hub answered {reason}; try again later",
                        reason=answer.status_code,
                    )
                )
            yield answer
            return
    raise PullError("the hub redirects without end")


def _refused(status: int, hub: Civitai) -> Message:
    where = urlsplit(hub.url).netloc
    if status == HTTPStatus.NOT_FOUND:
        return message("hub_no_model", "{hub} has no such model or version", hub=where)
    if hub.token is None:
        return message(
            "hub_account",
            "{hub} gives this file to accounts only: make an API key in your account's settings "
            "there, and set models.civitai_token (DARKROOM_MODELS__CIVITAI_TOKEN) on the server",
            hub=where,
        )
    return message(
        "hub_refuses",
        "{hub} refuses this file to the account of models.civitai_token: the key may be old, or "
        "the file is in early access, or its author's terms must be accepted on the page first",
        hub=where,
    )
