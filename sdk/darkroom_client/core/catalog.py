"""What may be asked of a server: its models, schedulers, LoRAs, embeddings and upscalers."""

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
    max_references: int = 0

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            min_side=data["min_side"],
            max_side=data["max_side"],
            max_pixels=data["max_pixels"],
            multiple_of=data["multiple_of"],
            max_clip_skip=data["max_clip_skip"],
            max_references=data.get("max_references", 0),
        )


@dataclass(frozen=True)
class Model:
    """A model that may be asked for by `name`.

    Attributes:
        default: whether it answers requests that name no model.
        fields: the optional fields of requests that it takes; empty if an older server does not
            tell.
        note: what to know before using it.
        examples: prompts that show what it can draw.
        title: what people call it; empty if its files do not say.
        trigger_words: what to write in the prompt for what it was trained on.
        licence: as its files say; empty if they do not.
        size_bytes: of its weights on the disk.
        memory_bytes: what they take in memory; None while no worker runs.
        fits: whether they fit into the memory that models may take; None while no worker runs.
        resident: whether it was in memory a few seconds ago.
        thumbnail_url: path of a picture that shows what it draws, or None.
        sha256: of its file; None of a folder, and until the server has made it.
        workers: names of those that run and have it.
        deletable: whether its owner may delete it by `delete_model`.
    """

    name: str
    family: str
    description: str
    tasks: tuple[Task, ...]
    defaults: ModelDefaults
    limits: ModelLimits
    default: bool
    fields: tuple[str, ...] = ()
    note: str = ""
    examples: tuple[str, ...] = ()
    title: str = ""
    trigger_words: tuple[str, ...] = ()
    licence: str = ""
    size_bytes: int = 0
    memory_bytes: int | None = None
    fits: bool | None = None
    resident: bool = False
    thumbnail_url: str | None = None
    sha256: str | None = None
    deletable: bool = False
    workers: tuple[str, ...] = ()

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
            fields=tuple(data.get("fields", ())),
            note=data.get("note", ""),
            examples=tuple(data.get("examples", ())),
            title=data.get("title", ""),
            trigger_words=tuple(data.get("trigger_words", ())),
            licence=data.get("licence", ""),
            size_bytes=data.get("size_bytes", 0),
            memory_bytes=data.get("memory_bytes"),
            fits=data.get("fits"),
            resident=data.get("resident", False),
            thumbnail_url=data.get("thumbnail_url"),
            sha256=data.get("sha256"),
            deletable=data.get("deletable", False),
            workers=tuple(data.get("workers", ())),
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
class LoraDefaults:
    """What a request with a LoRA for few steps takes when it does not say.

    None is the model's default.
    """

    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["num_inference_steps"], data["guidance_scale"], data["scheduler"])


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA that may be asked for by `name`.

    Attributes:
        family: sd1, sd2, sdxl, width-<text_dim>, or unknown.
        text_dim: width of the text it was trained on; None where the file does not say.
        trigger_words: what to write in the prompt to wake it.
        models: names of the models that it fits.
        aliases: other names that requests and prompts may use if no other LoRA has them.
        thumbnail_url: path of a picture that shows what it does, or None.
        defaults: of a LoRA that distils a model to few steps, else None.
    """

    name: str
    family: str
    text_dim: int | None
    title: str
    description: str
    trigger_words: tuple[str, ...]
    models: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    thumbnail_url: str | None = None
    defaults: LoraDefaults | None = None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        defaults = data.get("defaults")
        return cls(
            name=data["name"],
            family=data["family"],
            text_dim=data["text_dim"],
            title=data["title"],
            description=data["description"],
            trigger_words=tuple(data["trigger_words"]),
            models=tuple(data["models"]),
            aliases=tuple(data.get("aliases", ())),
            thumbnail_url=data.get("thumbnail_url"),
            defaults=None if defaults is None else LoraDefaults.from_wire(defaults),
        )


@dataclass(frozen=True)
class EmbeddingInfo:
    """A textual inversion: write its `name` in a prompt.

    Attributes:
        family: sd1, sd2, sdxl, or width-<text_dim>.
        text_dim: width of the text it was trained on.
        vectors: tokens of the prompt that it takes up.
        models: names of the models that it fits.
    """

    name: str
    family: str
    text_dim: int
    vectors: int
    models: tuple[str, ...]

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            name=data["name"],
            family=data["family"],
            text_dim=data["text_dim"],
            vectors=data["vectors"],
            models=tuple(data["models"]),
        )


@dataclass(frozen=True)
class UpscalerInfo:
    """A network that may be asked for by `name`.

    Attributes:
        scale: how many times larger it makes a picture, in each direction.
        max_pixels: width times height of the largest picture that it takes; None if an older
            server does not say.
    """

    name: str
    architecture: str
    scale: int
    max_pixels: int | None = None

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["name"], data["architecture"], data["scale"], data.get("max_pixels"))


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


def loras(data: Mapping[str, Any]) -> tuple[LoraInfo, ...]:
    return tuple(LoraInfo.from_wire(lora) for lora in data["loras"])


def embeddings(data: Mapping[str, Any]) -> tuple[EmbeddingInfo, ...]:
    return tuple(EmbeddingInfo.from_wire(embedding) for embedding in data["embeddings"])


def upscalers(data: Mapping[str, Any]) -> tuple[UpscalerInfo, ...]:
    return tuple(UpscalerInfo.from_wire(upscaler) for upscaler in data["upscalers"])
