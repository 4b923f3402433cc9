"""/models, /schedulers, /loras, /embeddings and /upscalers: to choose from, and to unload."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, not_found
from darkroom.api.http import send_model
from darkroom.api.openapi import IF_NONE_MATCH, Operation, route
from darkroom.catalog import loras, schedulers, sidecars
from darkroom.catalog.families import UNETS
from darkroom.catalog.hashes import AUTO_V2
from darkroom.catalog.loras import EmbeddingEntry, LoraEntry, UnknownLoraError
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.models import UnknownModelError
from darkroom.catalog.weight_files import UnusableError, stamp
from darkroom.engine.base import EngineMemory
from darkroom.images import codec
from darkroom.images.codec import PictureError
from darkroom.queue.unloads import ModelInUseError
from darkroom.requests import UPSCALERS, UnloadRequest
from darkroom.responses import (
    EmbeddingInfo,
    EmbeddingList,
    LoraInfo,
    LoraList,
    ModelList,
    OpenAIModel,
    Problem,
    SchedulerList,
    UpscalerList,
)

blueprint = Blueprint("models", __name__)

THUMBNAIL_WIDTH = 512  # pixels


@route(blueprint, "GET", "/models", Operation({200: ModelList}))
def list_models() -> Response:
    """List the models, each with its defaults and limits."""
    here = context()
    entries, fleet = here.catalog.entries(), here.fleet()
    broken, memories = here.store.broken_models(), here.store.memory()
    models = tuple(
        entry.info.model_copy(
            update={
                "broken": broken.get(entry.info.name),
                "size_bytes": entry.size_bytes,
                "workers": fleet.having(entry.info.name, is_here=not entry.is_elsewhere),
                "thumbnail_url": _thumbnail_url("models", entry.info.name, entry.picture),
                "deletable": _is_deletable(entry),
                **_hashes(here.hashes.of(entry.path)),
                **_in_memory(entry, memories),
            }
        )
        for entry in entries
    )
    return send_model(ModelList(models=models, data=openai_models(entries)))


def openai_models(entries: Iterable[ModelEntry]) -> tuple[OpenAIModel, ...]:
    """Models in OpenAI's shape, the default one first, because programs take the first."""
    return tuple(map(openai_model, sorted(entries, key=lambda entry: not entry.info.default)))


def openai_model(entry: ModelEntry) -> OpenAIModel:
    """A model in OpenAI's shape."""
    try:
        changed = int(entry.path.stat().st_mtime)
    except OSError:  # it was removed just now
        changed = 0
    return OpenAIModel(id=entry.info.name, created=changed)


def _hashes(sha256: str | None) -> dict[str, str | None]:
    return {"sha256": sha256, "autov2": sha256 and sha256[:AUTO_V2]}


def _in_memory(entry: ModelEntry, memories: Sequence[EngineMemory]) -> dict[str, Any]:
    """What is told of a model's weights in the workers' memory; of several the best."""
    name = entry.info.name
    resident = [memory.resident[name] for memory in memories if name in memory.resident]
    try:
        needed = [sum(entry.expected_parts(each.number_bytes).values()) for each in memories]
    except UnusableError:  # a file was just removed
        return {"resident": bool(resident)}
    if not needed:
        return {}
    return {
        "resident": bool(resident),
        "memory_bytes": min(resident or needed),
        "fits": any(
            size <= memory.budget_bytes for size, memory in zip(needed, memories, strict=True)
        ),
    }


def _is_deletable(entry: ModelEntry) -> bool:
    return not entry.info.default and entry.path.is_relative_to(context().settings.models_dir)


def _thumbnail_url(kind: str, name: str, picture: Path | None) -> str | None:
    return None if picture is None else f"/{kind}/{quote(name)}/thumbnail"


THUMBNAIL = Operation(
    {200: None, 304: None, 404: Problem}, sends=("image/webp",), takes=(IF_NONE_MATCH,)
)


@route(blueprint, "GET", "/models/<path:name>/thumbnail", THUMBNAIL)
def show_thumbnail(name: str) -> Response:
    """A small picture of what a model draws, which the owner or a downloader put beside it."""
    try:
        entry = context().catalog.find(name)
    except UnknownModelError as error:
        raise ProblemError(404, "not-found", "Not found", str(error)) from None
    return _thumbnail(entry.picture, f"model {name!r}")


@route(blueprint, "GET", "/loras/<path:name>/thumbnail", THUMBNAIL)
def show_lora_thumbnail(name: str) -> Response:
    """A small picture of what a LoRA does, which the owner or a downloader put beside it."""
    try:
        entry = context().adapters.loras.find(name)
    except UnknownLoraError as error:
        raise ProblemError(404, "not-found", "Not found", str(error)) from None
    return _thumbnail(entry.picture, f"LoRA {name!r}")


def _thumbnail(picture: Path | None, of: str) -> Response:
    if picture is None:
        raise not_found(f"picture of {of}")
    here = context()
    response = Response(content_type="image/webp")
    try:
        response.set_etag(sha256(repr(stamp(picture)).encode()).hexdigest())
        response.headers["Cache-Control"] = "private, max-age=600"
        if not request.if_none_match.contains(response.get_etag()[0] or ""):
            decoded = here.sources.decode("image", sidecars.picture_of(picture))
            with here.rendering:
                response.data = codec.thumbnail(decoded.png, THUMBNAIL_WIDTH)
    except (OSError, PictureError, UnusableError):
        raise not_found(f"readable picture of {of}") from None
    response.make_conditional(request)
    return response


@route(
    blueprint,
    "POST",
    "/models/unload",
    Operation({202: None, 404: Problem, 409: Problem}, json=UnloadRequest),
)
def unload_model() -> Response:
    """Take a model out of memory, for another program that needs it. For owners.

    The worker does it at once if the model is loaded and no job of it runs. The next job of the
    model loads it again.
    """
    access.require_owner()
    here = context()
    name = here.bodies.read_json(UnloadRequest).name
    try:
        if name.startswith(UPSCALERS):
            here.upscalers.find(name.removeprefix(UPSCALERS))
        else:
            here.catalog.find(name)
        here.unloads.ask(name)
    except UnknownModelError as error:
        raise ProblemError(404, "not-found", "Not found", str(error)) from None
    except ModelInUseError:
        detail = f"jobs of {name} run now; wait for them, or cancel them first"
        raise ProblemError(409, "in-use", "In use", detail) from None
    here.ring_worker()
    return Response(status=202)


@route(blueprint, "GET", "/schedulers", Operation({200: SchedulerList}))
def list_schedulers() -> Response:
    """List the schedulers, each with the spacings it supports."""
    return send_model(SchedulerList(schedulers=schedulers.infos()))


@route(blueprint, "GET", "/loras", Operation({200: LoraList}))
def list_loras() -> Response:
    """List the LoRAs, each with the models it fits, and files that cannot be used."""
    here = context()
    entries, broken = here.adapters.loras.read()
    models = here.catalog.entries()
    fitted = tuple(_fitted_lora(lora, models) for lora in entries)
    return send_model(LoraList(loras=fitted, broken=broken))


@route(blueprint, "GET", "/embeddings", Operation({200: EmbeddingList}))
def list_embeddings() -> Response:
    """List the textual inversions, each with the models it fits, and files that cannot be used."""
    here = context()
    entries, broken = here.adapters.embeddings.read()
    models = here.catalog.entries()
    fitted = tuple(_fitted_embedding(embedding, models) for embedding in entries)
    return send_model(EmbeddingList(embeddings=fitted, broken=broken))


@route(blueprint, "GET", "/upscalers", Operation({200: UpscalerList}))
def list_upscalers() -> Response:
    """List the networks that enlarge pictures, and files that cannot be used."""
    entries, broken = context().upscalers.read()
    upscalers = tuple(entry.info for entry in entries)
    return send_model(UpscalerList(upscalers=upscalers, broken=broken))


def _fitted_lora(lora: LoraEntry, entries: Sequence[ModelEntry]) -> LoraInfo:
    """A LoRA with those of the models that take it."""
    models = tuple(
        entry.info.name
        for entry in entries
        if "loras" in entry.info.fields and loras.misfit(lora, entry) is None
    )
    digest = context().hashes.of(lora.path)
    url = _thumbnail_url("loras", lora.info.name, lora.picture)
    return lora.info.model_copy(update={"models": models, "sha256": digest, "thumbnail_url": url})


def _fitted_embedding(embedding: EmbeddingEntry, entries: Sequence[ModelEntry]) -> EmbeddingInfo:
    """A textual inversion with those of the models whose text encoder has its width."""
    models = tuple(
        entry.info.name
        for entry in entries
        if entry.spec.family in UNETS  # others read none
        and entry.text_dim in (embedding.info.text_dim, None)
    )
    return embedding.info.model_copy(update={"models": models})
