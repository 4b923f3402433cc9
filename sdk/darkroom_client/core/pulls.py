"""Downloads of models to the server, for its owner."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from darkroom_client.core.problem import Problem
from darkroom_client.core.records import JobStatus

LOOK_S = 1.0  # between two looks at a download
KINDS = ("models", "loras", "embeddings", "upscalers")  # that can be deleted


@dataclass(frozen=True)
class PullPlan:
    """What would be downloaded, and whether there is room for it.

    Attributes:
        kind: models, loras, embeddings, upscalers or vae.
        name: what it will be called on the server.
        title: what the hub calls it.
        family: of a model; empty if it is not known.
        done_bytes: what an earlier try has brought.
        free_bytes: that it may take of the server's disk.
        memory_bytes: what its weights will take in memory; None if that is not known.
        fits: whether they fit into the memory that models may take; None if that is not known.
        lacks: why it could not draw yet when it has arrived, such as a text encoder that is
            missing; else None.
    """

    source: str
    kind: str
    name: str
    title: str
    family: str
    files: int
    total_bytes: int
    done_bytes: int
    free_bytes: int
    fits_on_disk: bool
    memory_bytes: int | None
    fits: bool | None
    lacks: str | None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            source=data["source"],
            kind=data["kind"],
            name=data["name"],
            title=data["title"],
            family=data["family"],
            files=data["files"],
            total_bytes=data["total_bytes"],
            done_bytes=data["done_bytes"],
            free_bytes=data["free_bytes"],
            fits_on_disk=data["fits_on_disk"],
            memory_bytes=data["memory_bytes"],
            fits=data["fits"],
            lacks=data["lacks"],
        )


@dataclass(frozen=True)
class Pull:
    """A download to the server.

    Attributes:
        kind: models, loras, embeddings, upscalers or vae.
        name: what it is called on the server.
        title: what the hub calls it.
        bytes_per_second: None until it is measured.
        error: why it failed. What has arrived is kept: asked for again, it goes on there.
    """

    id: str
    source: str
    kind: str
    name: str
    title: str
    status: JobStatus
    done_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    error: Problem | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def fraction(self) -> float:
        """How much of it has arrived, from 0 to 1."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 0.0

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        error, finished = data["error"], data["finished_at"]
        return cls(
            id=data["id"],
            source=data["source"],
            kind=data["kind"],
            name=data["name"],
            title=data["title"],
            status=JobStatus(data["status"]),
            done_bytes=data["done_bytes"],
            total_bytes=data["total_bytes"],
            bytes_per_second=data["bytes_per_second"],
            error=None if error is None else Problem.from_wire(error),
            created_at=datetime.fromisoformat(data["created_at"]),
            finished_at=None if finished is None else datetime.fromisoformat(finished),
        )


def pulls(data: Mapping[str, Any]) -> tuple[Pull, ...]:
    return tuple(Pull.from_wire(pull) for pull in data["pulls"])
