"""A job's events as OpenAI's: partial images, then the pictures."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from darkroom.compat.openai.errors import DELETED, STOPPING, as_error, failure
from darkroom.images import codec
from darkroom.requests import OutputFormat
from darkroom.responses import Event, EventType, Job, Problem
from darkroom.storage.files import Files
from darkroom.storage.records import DATA_URI

Kind = Literal["image_generation", "image_edit"]

# Nothing is metered here, but the SDK's types require numbers.
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


def created(job: Job) -> int:
    """When the job was accepted, in seconds since the epoch."""
    return int(job.created_at.timestamp())


def picture_fields(job: Job) -> dict[str, Any]:
    """Fields that are the same for all pictures of a job."""
    return {
        "background": "opaque",
        "output_format": job.request["output_format"],
        "quality": "auto",
        "size": f"{job.request['width']}x{job.request['height']}",
    }


class OpenAIEncoder:
    """Encodes one job's events for one listener; an `EventEncoder`.

    The wanted number of previews is spread evenly over the steps. If the job ends before the first
    of them was due, the last preview is sent, so that a listener who wants some gets one.

    Args:
        kind: first part of the events' names.
        wanted: number of partial images, at most.
        job: returns the job as it is now, None if it was deleted.
        files: the stored pictures.
    """

    def __init__(
        self, kind: Kind, wanted: int, job: Callable[[], Job | None], files: Files
    ) -> None:
        self._kind = kind
        self._wanted = wanted
        self._job = job
        self._files = files
        self._sent = 0  # partial images
        self._done = 0.0  # of the steps, 0 to 1
        self._preview: Event | None = None  # the newest one, unless it was sent

    def encode(self, events: Sequence[Event]) -> bytes:
        """The text of events that came together."""
        return "".join(text for event in events for text in self._encode(event)).encode()

    def encode_stop(self) -> bytes:
        """The text sent when the server stops before the job has ended."""
        return _error(STOPPING).encode()

    def _encode(self, event: Event) -> Iterator[str]:
        """The text of one event, which may be none or several of OpenAI's."""
        match event.type:
            case EventType.QUEUED:  # comes again if the worker died
                self._done = 0.0
            case EventType.PROGRESS:
                self._done = event.data["step"] / max(1, event.data["steps"])
            case EventType.PREVIEW:
                self._preview = event
                due = (self._sent + 1) / (self._wanted + 1)
                if self._sent < self._wanted and self._done >= due:
                    yield from self._partial()
            case EventType.SUCCEEDED:
                if self._wanted and not self._sent:
                    yield from self._partial()
                yield from self._completed()
            case EventType.FAILED | EventType.CANCELLED:
                job = self._job()
                yield _error((failure(job) if job else None) or DELETED)

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
        """The finished pictures, or an error if all were deleted."""
        job = self._job()
        sent = False
        for image in job.images if job else ():
            assert job is not None
            try:
                data = self._files.read(image.id)
            except FileNotFoundError:
                continue
            sent = True
            yield self._event(job, "completed", data, {"seed": image.seed, "usage": USAGE})
        if not sent:
            yield _error(DELETED)

    def _event(self, job: Job, name: str, data: bytes, more: Mapping[str, Any]) -> str:
        """One event with a picture."""
        kind = f"{self._kind}.{name}"
        content = {
            "type": kind,
            "b64_json": base64.b64encode(data).decode(),
            "created_at": created(job),
            **picture_fields(job),
            **more,
        }
        return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


def _error(problem: Problem) -> str:
    """An error event."""
    return f"event: error\ndata: {json.dumps({'type': 'error', **as_error(problem)})}\n\n"
