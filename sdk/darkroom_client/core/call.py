"""An HTTP request as plain data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from darkroom_client.core import sources
from darkroom_client.core.requests import ImageFormat, Request

PICTURES = ("image", "mask_image")
PICTURE_LISTS = ("references",)
# The server asks a hub what to download before it answers, for up to a minute.
PLAN_PATIENCE_S = 75.0


@dataclass(frozen=True)
class Call:
    """A request that may be sent more than once with the effect of once.

    Attributes:
        path: below the server's address.
        json: the body, or None.
        form: text fields of a multipart body.
        files: file parts of a multipart body.
        retries: whether a passing refusal is worth another attempt.
        deletes: whether it is done when there is nothing there.
        patience_s: for which an answer is waited for, if that is longer than for other calls.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    retries: bool = True
    deletes: bool = False
    patience_s: float = 0.0


def submit(request: Request, key: str) -> Call:
    """Put a job in the queue and hear of it at once.

    Pictures are read here, so that every attempt sends the same bytes.

    Args:
        request: of any task.
        key: unique to this job, 1 to 255 characters; makes a repeat return the same job.

    Raises:
        OSError: a picture's file cannot be read.
        TypeError: a picture is none.
    """
    given = request.given()
    pictures = {name: sources.read(given.pop(name)) for name in PICTURES if name in given}
    for name in PICTURE_LISTS:
        if name in given:
            listed = sources.read_all(name, given.pop(name))
            if all(isinstance(picture, str) for picture in listed):
                given[name] = listed
            else:  # numbered, because a form has no order between text and files
                numbered = enumerate(listed)
                pictures |= {f"{name}[{index}]": picture for index, picture in numbered}
    if "loras" in given:
        given["loras"] = [lora.to_wire() for lora in given["loras"]]
    given |= {name: value for name, value in pictures.items() if isinstance(value, str)}
    files = {name: value for name, value in pictures.items() if isinstance(value, bytes)}
    path = f"/{request.task}"
    headers = {"Prefer": "respond-async", "Idempotency-Key": key}
    if files:
        form = {name: _text(value) for name, value in given.items()}
        return Call("POST", path, headers=headers, form=form, files=files)
    return Call("POST", path, headers=headers, json=given)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def pair(code: str, name: str) -> Call:
    """Turn a pairing code into a token. Never sent twice: a code is good once."""
    return Call("POST", "/pair", json={"code": code, "name": name}, retries=False)


def token(data: Mapping[str, Any]) -> str:
    """The token in the answer to `pair`."""
    secret: str = data["token"]
    return secret


def show_job(job_id: str) -> Call:
    return Call("GET", f"/jobs/{_segment(job_id)}")


def cancel_job(job_id: str) -> Call:
    return Call("DELETE", f"/jobs/{_segment(job_id)}")


def list_jobs(status: str | None, limit: int, cursor: str | None) -> Call:
    query = {"limit": str(limit)}
    if status is not None:
        query["status"] = str(status)
    if cursor is not None:
        query["cursor"] = cursor
    return Call("GET", "/jobs", query)


def job_events(job_id: str, after: int) -> Call:
    """Open a job's event stream after the event of id `after`; 0 is the beginning."""
    headers = {"Accept": "text/event-stream"}
    if after:
        headers["Last-Event-ID"] = str(after)
    return Call("GET", f"/jobs/{_segment(job_id)}/events", headers=headers)


def show_timeline(job_id: str, index: int = 0) -> Call:
    query = {"index": str(index)} if index else {}
    return Call("GET", f"/jobs/{_segment(job_id)}/timeline", query)


def explain_job(job_id: str) -> Call:
    return Call("GET", f"/jobs/{_segment(job_id)}/explain")


def show_image(
    picture_id: str, image_format: ImageFormat | None = None, width: int | None = None
) -> Call:
    """Get a picture, as stored or in another format, or a thumbnail in WebP `width` pixels wide."""
    query = {} if width is None else {"w": str(width)}
    headers = {} if image_format is None else {"Accept": f"image/{image_format}"}
    return Call("GET", f"/images/{_segment(picture_id)}", query, headers)


def delete_image(picture_id: str) -> Call:
    return Call("DELETE", f"/images/{_segment(picture_id)}", deletes=True)


def list_models() -> Call:
    return Call("GET", "/models")


def list_schedulers() -> Call:
    return Call("GET", "/schedulers")


def list_loras() -> Call:
    return Call("GET", "/loras")


def list_embeddings() -> Call:
    return Call("GET", "/embeddings")


def unload(name: str) -> Call:
    return Call("POST", "/models/unload", json={"name": name})


def show_thumbnail(model: str) -> Call:
    return Call("GET", f"/models/{_segment(model)}/thumbnail")


def show_lora_thumbnail(lora: str) -> Call:
    return Call("GET", f"/loras/{_segment(lora)}/thumbnail")


def pull(
    source: str, name: str | None, variant: str | None, revision: str | None, *, dry_run: bool
) -> Call:
    """Download a model, or only tell what that would be. A repeat finds the first download."""
    given = {"source": source, "name": name, "variant": variant, "revision": revision}
    body = {key: value for key, value in given.items() if value is not None}
    json = {**body, "dry_run": dry_run}
    return Call("POST", "/models/pull", json=json, patience_s=PLAN_PATIENCE_S)


def list_pulls() -> Call:
    return Call("GET", "/pulls")


def show_pull(pull_id: str) -> Call:
    return Call("GET", f"/pulls/{_segment(pull_id)}")


def stop_pull(pull_id: str) -> Call:
    # A second one would take the download that was stopped off the list.
    return Call("DELETE", f"/pulls/{_segment(pull_id)}", retries=False)


def delete(kind: str, name: str) -> Call:
    """Delete a file of a kind: `models`, `loras`, `embeddings` or `upscalers`."""
    return Call("DELETE", f"/{_segment(kind)}/{_segment(name)}", deletes=True)


def list_upscalers() -> Call:
    return Call("GET", "/upscalers")


def list_workers() -> Call:
    return Call("GET", "/workers")


def drain(worker: str, stops: bool) -> Call:
    return Call("POST", f"/workers/{_segment(worker)}/{'drain' if stops else 'resume'}")


def health() -> Call:
    return Call("GET", "/healthz")


def ready() -> Call:
    """Ask whether a worker is ready: "no" is an answer, not a reason to ask again."""
    return Call("GET", "/readyz", retries=False)


def _segment(identifier: str) -> str:
    """One segment of a path, whatever the caller takes for an id."""
    return quote(identifier, safe="")
