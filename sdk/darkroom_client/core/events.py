"""What happens to a job, as it happens."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeAlias, TypeVar

from darkroom_client.core.errors import UnexpectedResponseError
from darkroom_client.core.problem import Problem
from darkroom_client.core.records import ImageRecord, Progress
from darkroom_client.core.sse import Message

ImageT = TypeVar("ImageT")


@dataclass(frozen=True)
class BaseEvent:
    """What all events have. Ids grow; what is not of the job's story, but news, has none."""

    type: ClassVar[str]
    terminal: ClassVar[bool] = False

    id: int | None
    job_id: str


@dataclass(frozen=True)
class QueuedEvent(BaseEvent):
    """The job waits, for the first time or again after its worker was lost.

    It comes again, without an id, when its place or its ETA has changed.
    """

    type = "queued"
    position: int | None
    eta_seconds: float | None


@dataclass(frozen=True)
class StartedEvent(BaseEvent):
    """A worker begins the job. `attempt` counts from 1."""

    type = "started"
    attempt: int


@dataclass(frozen=True)
class ProgressEvent(BaseEvent):
    """Steps were made. `eta_seconds` is what is left, if that has been measured."""

    type = "progress"
    progress: Progress
    eta_seconds: float | None


@dataclass(frozen=True)
class PreviewEvent(BaseEvent):
    """How a picture looks so far: a small file of type `content_type`.

    Attributes:
        index: of the picture among the job's, from 0.
        step: of the picture's `steps`; None from an older server.
    """

    type = "preview"
    content_type: str
    data: bytes
    index: int = 0
    step: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class NoteEvent(BaseEvent):
    """The server does something differently from what was asked, or knows what one should know."""

    type = "note"
    note: str


@dataclass(frozen=True)
class ImageEvent(BaseEvent, Generic[ImageT]):
    """A picture is finished and stored."""

    type = "image"
    image: ImageT


@dataclass(frozen=True)
class SucceededEvent(BaseEvent):
    """The job has all its pictures."""

    type = "succeeded"
    terminal = True


@dataclass(frozen=True)
class FailedEvent(BaseEvent):
    """The job ended without its pictures."""

    type = "failed"
    terminal = True
    problem: Problem


@dataclass(frozen=True)
class CancelledEvent(BaseEvent):
    """Somebody cancelled the job."""

    type = "cancelled"
    terminal = True


AnyEvent: TypeAlias = (
    QueuedEvent
    | StartedEvent
    | ProgressEvent
    | PreviewEvent
    | NoteEvent
    | ImageEvent[ImageT]
    | SucceededEvent
    | FailedEvent
    | CancelledEvent
)


def event_of(
    message: Message, image_of: Callable[[ImageRecord], ImageT]
) -> AnyEvent[ImageT] | None:
    """An event, or None for a kind that this version does not know.

    Raises:
        UnexpectedResponseError: the message is malformed.
    """
    try:
        return _event_of(message, image_of)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnexpectedResponseError(f"malformed event {message!r:.200}: {error!r}") from error


def _event_of(
    message: Message, image_of: Callable[[ImageRecord], ImageT]
) -> AnyEvent[ImageT] | None:
    if not message.id and message.event != QueuedEvent.type:
        return None  # not of the log: the stream's own affairs
    data = json.loads(message.data)
    event_id, job_id = int(message.id) if message.id else None, data["job_id"]
    match message.event:
        case QueuedEvent.type:
            return QueuedEvent(event_id, job_id, data["position"], data["eta_seconds"])
        case StartedEvent.type:
            return StartedEvent(event_id, job_id, data["attempt"])
        case ProgressEvent.type:
            progress = Progress(data["step"], data["steps"])
            return ProgressEvent(event_id, job_id, progress, data["eta_seconds"])
        case PreviewEvent.type:
            head, _, encoded = data["image"].partition(",")
            content_type = head.removeprefix("data:").removesuffix(";base64")
            return PreviewEvent(
                event_id,
                job_id,
                content_type,
                base64.b64decode(encoded),
                data.get("index", 0),
                data.get("step"),
                data.get("steps"),
            )
        case NoteEvent.type:
            return NoteEvent(event_id, job_id, data["note"])
        case ImageEvent.type:
            return ImageEvent(event_id, job_id, image_of(ImageRecord.from_wire(data["image"])))
        case SucceededEvent.type:
            return SucceededEvent(event_id, job_id)
        case FailedEvent.type:
            return FailedEvent(event_id, job_id, Problem.from_wire(data["problem"]))
        case CancelledEvent.type:
            return CancelledEvent(event_id, job_id)
    return None
