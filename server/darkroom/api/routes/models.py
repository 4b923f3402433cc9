"""/models, /schedulers, /loras, /embeddings and /upscalers: lists for choosing from."""

from flask import Blueprint, Response

from darkroom.api.context import context
from darkroom.api.http import send_model
from darkroom.api.openapi import route
from darkroom.catalog import schedulers
from darkroom.catalog.loras import model_text_dim
from darkroom.responses import (
    EmbeddingList,
    LoraList,
    ModelList,
    SchedulerList,
    UpscalerList,
)

blueprint = Blueprint("catalog", __name__)


@route(blueprint, "GET", "/models", answers={200: ModelList}, tag="models")
def list_models() -> Response:
    """List the models, each with its defaults and limits."""
    return send_model(ModelList(models=context().catalog.infos()))


@route(blueprint, "GET", "/schedulers", answers={200: SchedulerList}, tag="models")
def list_schedulers() -> Response:
    """List the schedulers, each with the spacings it supports."""
    return send_model(SchedulerList(schedulers=schedulers.infos()))


@route(blueprint, "GET", "/loras", answers={200: LoraList}, tag="models")
def list_loras() -> Response:
    """List the LoRAs, each with the models it fits, and files that cannot be used."""
    catalog = context().adapters
    loras = tuple(
        entry.info.model_copy(update={"models": _models_of(entry.info.text_dim)})
        for entry in catalog.loras.entries()
    )
    return send_model(LoraList(loras=loras, broken=catalog.loras.broken()))


@route(blueprint, "GET", "/embeddings", answers={200: EmbeddingList}, tag="models")
def list_embeddings() -> Response:
    """List the textual inversions, each with the models it fits, and files that cannot be used."""
    catalog = context().adapters
    embeddings = tuple(
        entry.info.model_copy(update={"models": _models_of(entry.info.text_dim)})
        for entry in catalog.embeddings.entries()
    )
    return send_model(EmbeddingList(embeddings=embeddings, broken=catalog.embeddings.broken()))


@route(blueprint, "GET", "/upscalers", answers={200: UpscalerList}, tag="models")
def list_upscalers() -> Response:
    """List the networks that enlarge pictures, and files that cannot be used."""
    catalog = context().upscalers
    upscalers = tuple(entry.info for entry in catalog.entries())
    return send_model(UpscalerList(upscalers=upscalers, broken=catalog.broken()))


def _models_of(text_dim: int | None) -> tuple[str, ...]:
    """Names of models whose text encoder has this width; all if it is unknown."""
    return tuple(
        entry.info.name
        for entry in context().catalog.entries()
        if text_dim is None or model_text_dim(entry.config) in (text_dim, None)
    )
