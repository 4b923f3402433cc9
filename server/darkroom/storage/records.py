"""Conversions between table rows and the types used everywhere else."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from darkroom.destinations import Destination
from darkroom.errors import Message
from darkroom.requests import RESOLVED, ResolvedRequest, Task, Workload
from darkroom.responses import (
    DATA_URI,
    Event,
    EventType,
    Image,
    Job,
    JobStatus,
    Note,
    Problem,
    Progress,
    Webhook,
)
from darkroom.storage.tables import EventRow, ImageRow, JobRow, WebhookRow

DEFAULT_URGENCY = 3  # RFC 9218, section 4.1


@dataclass(frozen=True)
class NewUpload:
    """A picture that came with a request; its PNG is in the files under `id`."""

    id: str
    sha256: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class NewJob:
    """A job to be queued.

    Attributes:
        client, client_name, urgency: as in `JobRow`.
        api: the foreign API that it was asked for by, or None.
        request: with `image:<id>` references only.
        uploads: pictures that came along.
        fingerprint: SHA-256 of the caller's request, to tell a repeat from a mistake.
        collapses: whether an unfinished job of this client with the same fingerprint will do, if
            nobody waits for it.
        is_retry: whether it will do also if somebody waits: the caller says that it asks again.
        wanted_s: how long it goes on without a caller; None is for as long as it takes.
        webhook: the address to call when it has ended.
        notes: what is done differently from the request from the start.
        old_fingerprint: as older servers computed it. A job that one of them stored under the same
            key has this one.
    """

    client: str
    client_name: str
    request: ResolvedRequest
    workload: Workload
    uploads: tuple[NewUpload, ...]
    fingerprint: str
    idempotency_key: str | None
    urgency: int = DEFAULT_URGENCY
    request_id: str | None = None
    api: str | None = None
    collapses: bool = False
    is_retry: bool = False
    wanted_s: float | None = None
    webhook: Destination | None = None
    notes: tuple[str, ...] = ()
    old_fingerprint: str | None = None


def source_names(request: ResolvedRequest) -> set[str]:
    """The ids of the stored pictures that a request works from."""
    fields = (getattr(request, name, None) for name in ("image", "mask_image"))
    values = [value for value in fields if value] + list(getattr(request, "references", ()))
    return {value.removeprefix("image:") for value in values}


@dataclass(frozen=True)
class Claim:
    """A job that a worker holds a lease on.

    Attributes:
        attempt: 1 at first.
        isolated: whether nothing else may be in flight with it.
    """

    job_id: str
    client: str
    request: ResolvedRequest
    workload: Workload
    attempt: int
    request_id: str | None = None
    isolated: bool = False


@dataclass(frozen=True)
class StoredPicture:
    """What is needed to send an image or upload."""

    id: str
    content_type: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class StoredExplanation:
    """The name of the file of an image's `ExplainedImage`, and its digest."""

    name: str
    index: int
    sha256: str


def explanation_name(image_id: str) -> str:
    """The name of the file that says how an image was made."""
    return f"{image_id}-explain"


@dataclass(frozen=True)
class Preview:
    """An image of an intermediate step: the id of its event, and a small WebP file."""

    id: int
    webp: bytes


@dataclass(frozen=True)
class NewEvent:
    job_id: str
    type: EventType
    data: dict[str, object]


def timestamp(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def request_of(row: JobRow) -> ResolvedRequest:
    return RESOLVED[Task(row.task)].model_validate_json(row.request)


def workload_of(row: JobRow) -> Workload:
    return Workload(row.model, row.pixels, row.images, row.steps)


def image_of(row: ImageRow) -> Image:
    return Image(
        id=row.id,
        job_id=row.job_id,
        index=row.index,
        seed=row.seed,
        width=row.width,
        height=row.height,
        content_type=row.content_type,
        bytes=row.bytes,
        sha256=row.sha256,
        worker=row.worker,
        device=row.device,
        created_at=timestamp(row.created_at),
        url=f"/images/{row.id}",
    )


def event_of(row: EventRow) -> Event:
    return Event(id=row.id, job_id=row.job_id, type=EventType(row.type), data=json.loads(row.data))


@dataclass(frozen=True)
class Estimate:
    """Position and ETA of a job, as in `Job`."""

    position: int | None = None
    eta_seconds: float | None = None

    @property
    def rounded_eta(self) -> float | None:
        return None if self.eta_seconds is None else round(self.eta_seconds, 2)


def preview_data(webp: bytes, index: int = 0, step: int = 0, steps: int = 0) -> dict[str, object]:
    """The data of the event of a preview: of image `index`, after so many of its steps.

    Older servers made previews of a job's first image alone; their events have `image` only.
    """
    image = DATA_URI + base64.b64encode(webp).decode()
    return {"index": index, "step": step, "steps": steps, "image": image}


class AsJson(FunctionElement[Any]):
    """A column of text as JSON: SQLite reads text as it is, PostgreSQL has a type of its own."""

    type = JSON()
    inherit_cache = True


@compiles(AsJson)
def _as_it_is(element: AsJson, compiler: Any, **options: Any) -> str:
    text: str = compiler.process(element.clauses, **options)
    return text


@compiles(AsJson, "postgresql")
def _as_a_type(element: AsJson, compiler: Any, **options: Any) -> str:
    return f"CAST({_as_it_is(element, compiler, **options)} AS JSON)"


def shows(index: int) -> ColumnElement[bool]:
    """The condition that an event of a preview shows image `index` of its job."""
    return func.coalesce(AsJson(EventRow.data)["index"].as_integer(), 0) == index


def preview_of(row: EventRow) -> Preview:
    image: str = json.loads(row.data)["image"]
    return Preview(row.id, base64.b64decode(image.removeprefix(DATA_URI)))


def note_of(text: str) -> Note:
    """A note; that of a `Message` has its code and values."""
    if isinstance(text, Message):
        return Note(text=text, code=text.code, values=dict(text.values))
    return Note(text=text)


def note_data(note: Note) -> dict[str, object]:
    """The data of a note's event."""
    more = note.model_dump(exclude={"text"}, exclude_defaults=True)
    return {"note": note.text, **more}


def notes_of(row: JobRow) -> list[Note]:
    """A job's notes. Older servers stored the texts alone."""
    stored: list[str | dict[str, Any]] = json.loads(row.notes)
    return [note_of(note) if isinstance(note, str) else Note(**note) for note in stored]


def notes_text(notes: Iterable[Note]) -> str:
    """Notes as a job's row has them."""
    stored = [note.model_dump(exclude_defaults=True) if note.code else note.text for note in notes]
    return json.dumps(stored, ensure_ascii=False)


def job_of(
    row: JobRow, images: Sequence[ImageRow], estimate: Estimate, webhook: WebhookRow | None
) -> Job:
    """The wire form of a job."""
    notes = notes_of(row)
    return Job(
        id=row.id,
        client=row.client_name,
        client_id=row.client,
        task=Task(row.task),
        status=JobStatus(row.status),
        position=estimate.position,
        eta_seconds=estimate.rounded_eta,
        progress=Progress(step=row.step, steps=row.steps),
        attempts=row.attempts,
        worker=row.worker,
        device=row.device,
        request=json.loads(row.request),
        images=tuple(image_of(image) for image in sorted(images, key=lambda image: image.index)),
        notes=tuple(note.text for note in notes),
        coded_notes=tuple(notes),
        error=None if row.error is None else Problem.model_validate_json(row.error),
        created_at=timestamp(row.created_at),
        started_at=None if row.started_at is None else timestamp(row.started_at),
        finished_at=None if row.finished_at is None else timestamp(row.finished_at),
        url=f"/jobs/{row.id}",
        webhook=webhook and Webhook.model_validate(webhook, from_attributes=True),
    )
