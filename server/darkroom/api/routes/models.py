"""/models, /schedulers, /loras, /embeddings and /upscalers: what may be asked for."""

from flask import Blueprint, Response

from darkroom.api.context import context
from darkroom.api.openapi import answers, document
from darkroom.api.render import send_model
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


@document.route(blueprint, "GET", "/models", resp=answers(HTTP_200=ModelList), tags=["catalog"])
def list_models() -> Response:
    """The models, each with its defaults and limits."""
    return send_model(ModelList(models=context().catalog.infos()))


@document.route(
    blueprint, "GET", "/schedulers", resp=answers(HTTP_200=SchedulerList), tags=["catalog"]
)
def list_schedulers() -> Response:
    """The schedulers, each with the spacings it supports."""
    return send_model(SchedulerList(schedulers=schedulers.infos()))


@document.route(blueprint, "GET", "/loras", resp=answers(HTTP_200=LoraList), tags=["catalog"])
def list_loras() -> Response:
    """The LoRAs, each with the models it fits, and files that cannot be used."""
    catalog = context().adapters
    loras = tuple(
        entry.info.model_copy(update={"models": _models_of(entry.info.text_dim)})
        for entry in catalog.loras()
    )
    return send_model(LoraList(loras=loras, broken=catalog.broken_loras()))


@document.route(
    blueprint, "GET", "/embeddings", resp=answers(HTTP_200=EmbeddingList), tags=["catalog"]
)
def list_embeddings() -> Response:
    """The textual inversions, each with the models it fits, and files that cannot be used."""
    catalog = context().adapters
    embeddings = tuple(
        entry.info.model_copy(update={"models": _models_of(entry.info.text_dim)})
        for entry in catalog.embeddings()
    )
    return send_model(EmbeddingList(embeddings=embeddings, broken=catalog.broken_embeddings()))


@document.route(
    blueprint, "GET", "/upscalers", resp=answers(HTTP_200=UpscalerList), tags=["catalog"]
)
def list_upscalers() -> Response:
    """The networks that make pictures larger, and files that cannot be used."""
    catalog = context().upscalers
    upscalers = tuple(entry.info for entry in catalog.upscalers())
    return send_model(UpscalerList(upscalers=upscalers, broken=catalog.broken()))


def _models_of(text_dim: int | None) -> tuple[str, ...]:
    """Models that read text of this width; all where it is not known."""
    return tuple(
        entry.info.name
        for entry in context().catalog.entries()
        if text_dim is None or model_text_dim(entry.config) in (text_dim, None)
    )
