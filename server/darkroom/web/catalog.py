"""/models and /schedulers: what may be asked for."""

from flask import Blueprint, Response

from darkroom.catalog import schedulers
from darkroom.schemas import ModelList, SchedulerList
from darkroom.web.context import context
from darkroom.web.openapi import answers, spec
from darkroom.web.rendering import send_model

blueprint = Blueprint("catalog", __name__)


@blueprint.get("/models")
@spec.validate(resp=answers(HTTP_200=ModelList), tags=["catalog"])
def list_models() -> Response:
    """The models, each with its defaults and limits."""
    return send_model(ModelList(models=context().catalog.infos()))


@blueprint.get("/schedulers")
@spec.validate(resp=answers(HTTP_200=SchedulerList), tags=["catalog"])
def list_schedulers() -> Response:
    """The schedulers, each with the spacings it supports."""
    return send_model(SchedulerList(schedulers=schedulers.infos()))
