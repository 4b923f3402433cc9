"""Jobs and pictures as the server reports them."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

from darkroom_client.core.lora import Lora
from darkroom_client.core.problem import Problem


class Task(enum.StrEnum):
    """What a job does."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    EDIT = "edit"
    UPSCALE = "upscale"


class JobStatus(enum.StrEnum):
    """How a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether it stays that way."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True)
class Progress:
    """Denoising steps over all images of a job that are done, and how many there are."""

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return self.step / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class ImageRecord:
    """What is known of a picture that a job made.

    Attributes:
        index: its place among the job's pictures, from 0.
        width: in pixels; so is `height`.
        content_type: as stored, `image/png`, `image/jpeg` or `image/webp`.
        size_bytes: as stored.
        sha256: of the stored bytes, in hexadecimal.
        url: path on the server.
        worker: name of the worker that made it, on a `device` such as `cuda`; None if not known.
    """

    id: str
    job_id: str
    index: int
    seed: int
    width: int
    height: int
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime
    url: str
    worker: str | None = None
    device: str | None = None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            id=data["id"],
            job_id=data["job_id"],
            index=data["index"],
            seed=data["seed"],
            width=data["width"],
            height=data["height"],
            content_type=data["content_type"],
            size_bytes=data["bytes"],
            sha256=data["sha256"],
            created_at=datetime.fromisoformat(data["created_at"]),
            url=data["url"],
            worker=data.get("worker"),
            device=data.get("device"),
        )


@dataclass(frozen=True)
class JobRecord:
    """A job at one moment.

    Attributes:
        position: jobs ahead of it while it is queued, else None.
        eta_seconds: measured estimate of the time to its end, or None.
        attempts: how often a worker began it.
        request: its fields with nothing left open. As arguments of the same task they make the
            same pictures again.
        notes: what was done differently from what was asked, and what else to know.
        error: of a failed job.
        url: path on the server.
        worker: name of the worker where it runs or ran last, on a `device` such as `cuda`.
    """

    id: str
    task: Task
    status: JobStatus
    position: int | None
    eta_seconds: float | None
    progress: Progress
    attempts: int
    request: Mapping[str, Any]
    images: tuple[ImageRecord, ...]
    notes: tuple[str, ...]
    error: Problem | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    url: str
    worker: str | None = None
    device: str | None = None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        request = dict(data["request"])
        if "loras" in request:
            request["loras"] = [Lora(**lora) for lora in request["loras"]]
        return cls(
            id=data["id"],
            task=Task(data["task"]),
            status=JobStatus(data["status"]),
            position=data["position"],
            eta_seconds=data["eta_seconds"],
            progress=Progress(data["progress"]["step"], data["progress"]["steps"]),
            attempts=data["attempts"],
            request=MappingProxyType(request),
            images=tuple(ImageRecord.from_wire(image) for image in data["images"]),
            notes=tuple(data["notes"]),
            error=None if data["error"] is None else Problem.from_wire(data["error"]),
            created_at=datetime.fromisoformat(data["created_at"]),
            started_at=_moment(data["started_at"]),
            finished_at=_moment(data["finished_at"]),
            url=data["url"],
            worker=data.get("worker"),
            device=data.get("device"),
        )


@dataclass(frozen=True)
class JobPage:
    """Jobs newest first, and the cursor of the next page if there is one."""

    jobs: tuple[JobRecord, ...]
    next_cursor: str | None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(tuple(JobRecord.from_wire(job) for job in data["jobs"]), data["next_cursor"])


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
