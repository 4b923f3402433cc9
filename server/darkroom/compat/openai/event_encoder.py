"""A job's events as OpenAI's clients hear of them: partial images, then the picture."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from darkroom.api.errors import as_openai
from darkroom.compat.openai.answers import USAGE, about, seconds
from darkroom.compat.openai.problems import GONE, STOPPING, failure
from darkroom.images import codec
from darkroom.requests import OutputFormat
from darkroom.responses import Event, EventType, Job, Problem
from darkroom.storage.files import Files
from darkroom.storage.records import DATA_URI

Kind = Literal["image_generation", "image_edit"]


class Partials:
    """Tells one listener of one job.

    As many previews as were asked for are passed on, spread over the steps. Of a job that is done
    before any was due, the last one is: who asked for some gets to see one if there is any.

    Args:
        kind: what events are called.
        wanted: partial images, at most.
        job: as it stands now; None once it is deleted.
        files: where its pictures lie.
    """

    def __init__(
        self,
        kind: Kind,
        wanted: int,
        job: Callable[[], Job | None],
        files: Files,
    ) -> None:
        self._kind = kind
        self._wanted = wanted
        self._job = job
        self._files = files
        self._told = 0
        self._done = 0.0  # of the steps, 0 to 1
        self._last: Event | None = None  # the newest preview, unless it was told

    def tell(self, events: Sequence[Event]) -> bytes:
        return "".join(text for event in events for text in self._tell(event)).encode()

    def break_off(self) -> bytes:
        return _error(STOPPING).encode()

    def _tell(self, event: Event) -> Iterator[str]:
        match event.type:
            case EventType.QUEUED:  # once more, if its worker died
                self._done = 0.0
            case EventType.PROGRESS:
                self._done = event.data["step"] / max(1, event.data["steps"])
            case EventType.PREVIEW:
                self._last = event
                due = (self._told + 1) / (self._wanted + 1)
                if self._told < self._wanted and self._done >= due:
                    yield from self._partial()
            case EventType.SUCCEEDED:
                if self._wanted and not self._told:
                    yield from self._partial()
                yield from self._completed()
            case EventType.FAILED | EventType.CANCELLED:
                job = self._job()
                yield _error((failure(job) if job else None) or GONE)

    def _partial(self) -> Iterator[str]:
        job, preview = self._job(), self._last
        if job is None or preview is None:
            return
        webp = base64.b64decode(preview.data["image"].removeprefix(DATA_URI))
        data = codec.transcode(webp, OutputFormat(job.request["output_format"]))
        index, self._told, self._last = self._told, self._told + 1, None
        yield self._event(job, "partial_image", data, {"partial_image_index": index})

    def _completed(self) -> Iterator[str]:
        job = self._job()
        told = False
        for image in job.images if job else ():
            assert job is not None
            try:
                data = self._files.read(image.id)
            except FileNotFoundError:
                continue
            told = True
            yield self._event(job, "completed", data, {"seed": image.seed, "usage": USAGE})
        if not told:
            yield _error(GONE)

    def _event(self, job: Job, name: str, data: bytes, more: Mapping[str, Any]) -> str:
        kind = f"{self._kind}.{name}"
        content = {
            "type": kind,
            "b64_json": base64.b64encode(data).decode(),
            "created_at": seconds(job),
            **about(job),
            **more,
        }
        return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


def _error(problem: Problem) -> str:
    return f"event: error\ndata: {json.dumps({'type': 'error', **as_openai(problem)})}\n\n"
