"""/models and /schedulers: what may be asked for."""

from flask import Blueprint, Response

from darkroom.catalog import schedulers
from darkroom.schemas import ModelList, SchedulerList
from darkroom.web.context import context
from darkroom.web.openapi import answers, document
from darkroom.web.rendering import send_model

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
