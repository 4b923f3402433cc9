"""What a notebook shows of a job."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from darkroom_client.core.descriptions import duration, words
from darkroom_client.core.events import (
    AnyEvent,
    NoteEvent,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
)
from darkroom_client.core.records import JobRecord, JobStatus, Progress


@dataclass(frozen=True)
class Shown:
    """A picture's file, of type `content_type`."""

    content_type: str
    data: bytes


@dataclass(frozen=True)
class Look:
    """A job at one moment.

    Attributes:
        title: its prompt.
        doing: in words, without the time left.
        left: the time left in words, empty if it is unknown.
        progress: None where there is nothing to measure: it waits, or has ended.
        busy: whether it waits or runs, and somebody watches.
        pictures: the preview, or what was made.
        notes: the server's, as they came.
    """

    title: str
    doing: str
    left: str = ""
    progress: Progress | None = None
    busy: bool = False
    pictures: tuple[Shown, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: JobRecord, pictures: tuple[Shown, ...] = ()) -> Self:
        """As a record has it."""
        running = record.status is JobStatus.RUNNING
        return cls(
            title=str(record.request.get("prompt", "")),
            doing=_doing(record),
            left="" if record.status.terminal else duration(record.eta_seconds),
            progress=record.progress if running else None,
            busy=not record.status.terminal,
            pictures=pictures,
            notes=record.notes,
        )

    def after(self, event: AnyEvent[Any]) -> Self:
        """The look after an event. The end is shown from the record."""
        change = dataclasses.replace
        match event:
            case QueuedEvent():  # anew, perhaps: what an earlier attempt had made is lost
                said, left = words(event) or "", duration(event.eta_seconds)
                return change(self, doing=said, left=left, progress=None, pictures=())
            case StartedEvent():
                return change(self, doing=words(event) or "")
            case ProgressEvent():
                said, left = words(event) or "", duration(event.eta_seconds)
                return change(self, doing=said, left=left, progress=event.progress)
            case PreviewEvent(index=0):
                return change(self, pictures=(Shown(event.content_type, event.data),))
            case NoteEvent() if event.note not in self.notes:
                return change(self, notes=(*self.notes, event.note))
        return self

    def left_alone(self) -> Self:
        """The look when the job is no longer followed."""
        doing = f"{self.doing}; no longer watched, the job goes on"
        return dataclasses.replace(self, doing=doing, left="", busy=False, pictures=())


def _doing(record: JobRecord) -> str:
    match record.status:
        case JobStatus.QUEUED:
            return words(QueuedEvent(None, record.id, record.position, None)) or ""
        case JobStatus.RUNNING:
            return words(ProgressEvent(None, record.id, record.progress, None)) or ""
        case JobStatus.SUCCEEDED:
            return f"{_pictures(len(record.images))}{_took(record)}"
        case JobStatus.FAILED if record.error is not None:
            return f"failed: {record.error.title}: {record.error.detail}"
    return str(record.status)


def _pictures(count: int) -> str:
    return {0: "no pictures any more", 1: "1 picture"}.get(count, f"{count} pictures")


def _took(record: JobRecord) -> str:
    if record.started_at is None or record.finished_at is None:
        return ""
    return f" in {(record.finished_at - record.started_at).total_seconds():.1f} s"
