"""Answers of OpenAI's API: a picture's fields, the events of a stream, and errors."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from darkroom.api.errors import CANCELLED, FILES, STOPPED_S, ProblemError, invalid
from darkroom.api.errors import STOPPING as STOPPING_FOR_ALL
from darkroom.images import codec
from darkroom.requests import OutputFormat
from darkroom.responses import DATA_URI, Event, EventType, Job, JobStatus, Problem
from darkroom.storage.files import Files, FilesUnavailableError

Kind = Literal["image_generation", "image_edit"]

# Nothing is metered here, but the SDK's types require numbers.
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}

# OpenAI's names of our fields.
NAMES = {
    "#/num_images": "#/n",
    "#/width": "#/size",
    "#/height": "#/size",
    "#/mask_image": "#/mask",
}
REFERENCES = re.compile(r"#/references(/\d+)?")  # which are images there
# OpenAI's codes of our problems.
CODES = {
    "token": "invalid_api_key",
    "model": "model_not_found",
    "validation": "invalid_value",
    "queue-full": "rate_limit_exceeded",
    "too-many-requests": "rate_limit_exceeded",
    "too-many-failures": "rate_limit_exceeded",
}
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

STOPPING = STOPPING_FOR_ALL.model_copy(
    update={"detail": f"{STOPPING_FOR_ALL.detail} and you ask again"}
)
DELETED = Problem(
    type="urn:darkroom:problem:not-found",
    title="Not found",
    status=404,
    detail="the picture was deleted while you waited for it",
)


def as_error(problem: Problem) -> dict[str, Any]:
    """A problem as OpenAI's API answers it (API reference, "Error codes")."""
    param = problem.errors[0].pointer.removeprefix("#").removeprefix("/") if problem.errors else ""
    _, ours, kind = problem.type.partition("urn:darkroom:problem:")
    error = {
        "message": problem.detail or problem.title,
        "type": "server_error"
        if problem.status >= 500
        else TYPES.get(problem.status, "invalid_request_error"),
        "param": param or None,
        "code": CODES.get(kind, kind.replace("-", "_")) if ours else None,
    }
    return {"error": error}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise errors of wrong fields under OpenAI's names, and with status 400 instead of 422.

    The SDK raises `BadRequestError` for 400, which is what its users catch.
    """
    try:
        yield
    except ProblemError as error:
        if error.problem.status != 422:
            raise
        renamed = {
            (pointer, wrong.detail): wrong.model_copy(update={"pointer": pointer})
            for wrong in error.problem.errors
            for pointer in [_renamed(wrong.pointer)]
        }
        raise invalid(renamed.values(), 400) from None


def _renamed(pointer: str) -> str:
    return "#/image" if REFERENCES.fullmatch(pointer) else NAMES.get(pointer, pointer)


def failure(job: Job | None) -> Problem | None:
    """Why a job, None if it was deleted, has no pictures; None if it has some."""
    if job is None:
        return DELETED
    if job.status is JobStatus.SUCCEEDED:
        return None if job.images else DELETED
    if job.status is JobStatus.CANCELLED:
        return CANCELLED
    return job.error or STOPPING


def job_fields(job: Job) -> dict[str, Any]:
    """Fields that are the same for all pictures of a job."""
    return {
        "background": "opaque",
        "output_format": job.request["output_format"],
        "quality": "auto",
        "size": f"{job.request['width']}x{job.request['height']}",
    }


def created(job: Job) -> int:
    """When the job was accepted, in seconds since the epoch."""
    return int(job.created_at.timestamp())


class OpenAIEncoder:
    """Encodes one job's events for one listener; an `EventEncoder`.

    The wanted number of previews is spread evenly over the steps. If the job ends before the first
    of them was due, the last preview is sent, so that a listener who wants some gets one.

    Args:
        kind: first part of the events' names.
        wanted: number of partial images, at most.
        location: the job's address.
        ignored: names of the fields without effect, which each finished picture comes with.
        job: returns the job as it is now, None if it was deleted.
        files: the stored pictures.
    """

    def __init__(
        self,
        kind: Kind,
        wanted: int,
        location: str,
        ignored: Sequence[str],
        job: Callable[[], Job | None],
        files: Files,
    ) -> None:
        self._kind = kind
        self._wanted = wanted
        self._location = location
        self._ignored = ignored
        self._job = job
        self._files = files
        self._sent = 0  # partial images
        self._done = 0.0  # of the steps, 0 to 1
        self._preview: Event | None = None  # the newest one, unless it was sent

    def encode(self, events: Sequence[Event]) -> bytes:
        return "".join(text for event in events for text in self._encode(event)).encode()

    def encode_stop(self) -> bytes:
        """The 503 that a plain request gets, whose headers are fields here."""
        return _error(STOPPING, retry_after=STOPPED_S, location=self._location).encode()

    def _encode(self, event: Event) -> Iterator[str]:
        """The text of one event, which may be none or several of OpenAI's."""
        match event.type:
            case EventType.QUEUED:  # comes again if the worker died
                self._done = 0.0
            case EventType.PROGRESS:
                self._done = event.data["step"] / max(1, event.data["steps"])
            case EventType.PREVIEW if not event.data.get("index"):  # of the first picture
                self._preview = event
                due = (self._sent + 1) / (self._wanted + 1)
                if self._sent < self._wanted and self._done >= due:
                    yield from self._partial()
            case EventType.SUCCEEDED:
                if self._wanted and not self._sent:
                    yield from self._partial()
                yield from list(self._completed()) or [_error(DELETED)]
            case EventType.FAILED | EventType.CANCELLED:
                yield _error(failure(self._job()) or DELETED)

    def _partial(self) -> Iterator[str]:
        """The newest preview, in the format of the pictures."""
        job, preview = self._job(), self._preview
        if job is None or preview is None:
            return
        webp = base64.b64decode(preview.data["image"].removeprefix(DATA_URI))
        data = codec.transcode(webp, OutputFormat(job.request["output_format"]))
        index, self._sent, self._preview = self._sent, self._sent + 1, None
        yield self._event(job, "partial_image", data, {"partial_image_index": index})

    def _completed(self) -> Iterator[str]:
        """The finished pictures, without deleted ones."""
        job = self._job()
        if job is None:
            return
        for image in job.images:
            try:
                data = self._files.read(image.id)
            except FileNotFoundError:
                continue
            except FilesUnavailableError:
                yield _error(FILES, retry_after=STOPPED_S, location=self._location)
                return
            more = {"seed": image.seed, "usage": USAGE, "ignored": self._ignored}
            yield self._event(job, "completed", data, more)

    def _event(self, job: Job, name: str, data: bytes, more: Mapping[str, Any]) -> str:
        """One event with a picture."""
        kind = f"{self._kind}.{name}"
        content = {
            "type": kind,
            "b64_json": base64.b64encode(data).decode(),
            "created_at": created(job),
            **job_fields(job),
            **more,
        }
        return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


def _error(problem: Problem, **more: object) -> str:
    """An error event, with `more` fields in the error."""
    error = {"type": "error", "error": as_error(problem)["error"] | more}
    return f"event: error\ndata: {json.dumps(error)}\n\n"
