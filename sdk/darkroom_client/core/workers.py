"""The workers of a server, for its owner."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True)
class Worker:
    """A worker of a server's queue.

    Attributes:
        alive: whether it has been heard of lately.
        ready: whether its default model is loaded.
        draining: whether it only finishes what it has.
        device: such as `cuda`; `device_name` is what the GPU or CPU is called.
        torch: the version of torch.
        free_bytes: of its GPU's memory, or its machine's; None if not known.
        models: names of those that it has, and of these `resident` are in memory.
        seen_at: when it was heard of last.
    """

    name: str
    alive: bool
    ready: bool
    draining: bool
    device: str
    device_name: str
    torch: str
    free_bytes: int | None
    models: tuple[str, ...]
    resident: tuple[str, ...]
    jobs_in_flight: int
    max_in_flight: int
    seen_at: datetime

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            name=data["name"],
            alive=data["alive"],
            ready=data["ready"],
            draining=data["draining"],
            device=data["device"],
            device_name=data["device_name"],
            torch=data["torch"],
            free_bytes=data["free_bytes"],
            models=tuple(data["models"]),
            resident=tuple(data["resident"]),
            jobs_in_flight=data["jobs_in_flight"],
            max_in_flight=data["max_in_flight"],
            seen_at=datetime.fromisoformat(data["seen_at"]),
        )


def all_of(data: Mapping[str, Any]) -> tuple[Worker, ...]:
    return tuple(Worker.from_wire(worker) for worker in data["workers"])
