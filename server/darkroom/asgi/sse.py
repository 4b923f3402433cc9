"""Events as the bytes of server-sent events (HTML standard, section 9.2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from darkroom.responses import Event, EventType
from darkroom.storage.records import Estimate


@dataclass(frozen=True)
class Line:
    """An event, rendered.

    Attributes:
        id: None for what is not of the log: `Last-Event-ID` stays where it was.
        job_id: of the job it happened to.
        client: whose job that is, or None if nobody knows any more.
        type: of the event.
        estimate: what it says of a queued job's prospects.
        data: the bytes.
        event: of the log, or None as `id`.
    """

    id: int | None
    job_id: str
    client: str | None
    type: EventType
    estimate: Estimate | None
    data: bytes
    event: Event | None = None


def line_of(event: Event, client: str | None) -> Line:
    """An event of the log."""
    estimate = None
    if event.type is EventType.QUEUED:
        estimate = Estimate(event.data["position"], event.data["eta_seconds"])
    data = f"id: {event.id}\n{_render(event.type, event.job_id, event.data)}".encode()
    return Line(event.id, event.job_id, client, event.type, estimate, data, event)


def estimate_line(job_id: str, estimate: Estimate) -> Line:
    """News of a queued job's prospects, which the log does not keep."""
    about = {"position": estimate.position, "eta_seconds": estimate.eta_seconds}
    data = _render(EventType.QUEUED, job_id, about).encode()
    return Line(None, job_id, None, EventType.QUEUED, estimate, data)


def _render(kind: EventType, job_id: str, about: Mapping[str, object]) -> str:
    data = json.dumps({"job_id": job_id, **about}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n"


class Chunk:
    """Lines that are sent together, joined once for all who get them."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)

    @cached_property
    def data(self) -> bytes:
        return b"".join(line.data for line in self.lines)

    @cached_property
    def ends(self) -> bool:
        """Whether a job ends here."""
        return any(line.type.terminal for line in self.lines)

    def after(self, event_id: int) -> "Chunk":
        """What is left of it for one who has the events up to an id."""
        fresh = [line for line in self.lines if line.id is None or line.id > event_id]
        return self if len(fresh) == len(self.lines) else Chunk(fresh)


class Batch(Chunk):
    """Lines of all jobs that came together."""

    def by_job(self) -> dict[str, Chunk]:
        """Each job's lines."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.job_id, []).append(line)
        return {job_id: Chunk(lines) for job_id, lines in found.items()}

    def by_client(self) -> dict[str | None, Chunk]:
        """Each client's lines."""
        found: dict[str | None, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.client, []).append(line)
        return {client: Chunk(lines) for client, lines in found.items()}
