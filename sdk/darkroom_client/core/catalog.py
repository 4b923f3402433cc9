"""What may be asked of a server: its models and schedulers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from darkroom_client.core.records import Task


@dataclass(frozen=True)
class ModelDefaults:
    """What a request takes when it does not say. Sizes in pixels."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            width=data["width"],
            height=data["height"],
            num_inference_steps=data["num_inference_steps"],
            guidance_scale=data["guidance_scale"],
            scheduler=data["scheduler"],
        )


@dataclass(frozen=True)
class ModelLimits:
    """What a request may say. Sides in pixels; `max_pixels` is width times height."""

    min_side: int
    max_side: int
    max_pixels: int
    multiple_of: int
    max_clip_skip: int

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            min_side=data["min_side"],
            max_side=data["max_side"],
            max_pixels=data["max_pixels"],
            multiple_of=data["multiple_of"],
            max_clip_skip=data["max_clip_skip"],
        )


@dataclass(frozen=True)
class Model:
    """A model that may be asked for by `name`.

    Attributes:
        default: whether it answers requests that name no model.
    """

    name: str
    family: str
    description: str
    tasks: tuple[Task, ...]
    defaults: ModelDefaults
    limits: ModelLimits
    default: bool

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            name=data["name"],
            family=data["family"],
            description=data["description"],
            tasks=tuple(Task(task) for task in data["tasks"]),
            defaults=ModelDefaults.from_wire(data["defaults"]),
            limits=ModelLimits.from_wire(data["limits"]),
            default=data["default"],
        )


@dataclass(frozen=True)
class Scheduler:
    """A scheduler that may be asked for by `name`.

    Attributes:
        title: as other tools call it.
        variants: names of the same scheduler with its noise levels spaced in another way.
    """

    name: str
    title: str
    variants: tuple[str, ...]

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["name"], data["title"], tuple(data["variants"]))


@dataclass(frozen=True)
class Health:
    """What a living server says of itself."""

    status: str
    version: str

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["status"], data["version"])


def models(data: Mapping[str, Any]) -> tuple[Model, ...]:
    return tuple(Model.from_wire(model) for model in data["models"])


def schedulers(data: Mapping[str, Any]) -> tuple[Scheduler, ...]:
    return tuple(Scheduler.from_wire(scheduler) for scheduler in data["schedulers"])
