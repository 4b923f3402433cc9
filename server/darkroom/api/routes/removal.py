"""DELETE of models, LoRAs, embeddings and upscalers, for owners."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Response

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.openapi import Operation, route
from darkroom.catalog import removal
from darkroom.catalog.listing import EMBEDDED
from darkroom.catalog.models import UnknownModelError
from darkroom.errors import DarkroomError, message
from darkroom.queue.uses import InUseError, unused
from darkroom.requests import UPSCALERS
from darkroom.responses import Problem

blueprint = Blueprint("removal", __name__)

DELETED = Operation({204: None, 404: Problem, 409: Problem})
PROMPTS = ("prompt", "negative_prompt")


@route(blueprint, "DELETE", "/models/<path:name>", DELETED)
def delete_model(name: str) -> Response:
    """Delete a model's files from the server's disk. For owners.

    Not the default model, nor one that comes with the server, is in a folder of another program, or
    that jobs need which have not ended.
    """
    access.require_owner()
    here = context()
    try:
        entry = here.catalog.find(name)
    except UnknownModelError as error:
        raise _unknown(error) from None
    if entry.info.default:
        detail = message(
            "delete_default",
            "{name} answers requests that name no model; set models.default to another one first",
            name=name,
        )
        raise ProblemError(409, "default-model", "The default model", detail)
    _delete(entry.path, here.settings.models_dir, lambda model, _: model == name)
    here.unloads.ask(name)
    here.ring_worker()
    return Response(status=204)


@route(blueprint, "DELETE", "/loras/<path:name>", DELETED)
def delete_lora(name: str) -> Response:
    """Delete a LoRA's file from the server's disk. For owners; as `DELETE /models/{name}`."""
    access.require_owner()
    here = context()
    try:
        entry = here.adapters.loras.find(name)
    except DarkroomError as error:
        raise _unknown(error) from None
    names = {entry.info.name, *entry.aliases}

    def needs(_: str, asked: Mapping[str, Any]) -> bool:
        return any(lora.get("name") in names for lora in asked.get("loras") or ())

    _delete(entry.path, here.settings.loras_dir, needs)
    return Response(status=204)


@route(blueprint, "DELETE", "/embeddings/<path:name>", DELETED)
def delete_embedding(name: str) -> Response:
    """Delete an embedding's file from the server's disk. For owners; as `DELETE /models/{name}`."""
    access.require_owner()
    here = context()
    try:
        entry = here.adapters.embeddings.find(name)
    except DarkroomError as error:
        raise _unknown(error) from None
    word = re.compile(rf"(?<!\w){re.escape(entry.info.name)}(?!\w)", re.IGNORECASE)

    def needs(_: str, asked: Mapping[str, Any]) -> bool:
        return any(word.search(asked.get(prompt) or "") for prompt in PROMPTS)

    _delete(entry.path, here.settings.embeddings_dir, needs)
    return Response(status=204)


@route(blueprint, "DELETE", "/upscalers/<path:name>", DELETED)
def delete_upscaler(name: str) -> Response:
    """Delete an upscaler's file from the server's disk. For owners; as `DELETE /models/{name}`."""
    access.require_owner()
    here = context()
    try:
        entry = here.upscalers.find(name)
    except UnknownModelError as error:
        raise _unknown(error) from None
    _delete(entry.path, here.settings.upscalers_dir, lambda model, _: model == UPSCALERS + name)
    here.unloads.ask(UPSCALERS + name)
    here.ring_worker()
    return Response(status=204)


def _unknown(error: DarkroomError) -> ProblemError:
    return ProblemError(404, "not-found", "Not found", str(error))


def _delete(path: Path, folder: Path, needs: Callable[[str, Mapping[str, Any]], bool]) -> None:
    """Delete a file of the owner's own, which no job needs. ProblemError 409 otherwise."""
    if path.is_relative_to(EMBEDDED):
        detail = message("delete_included", "it comes with the server, and stays")
        raise ProblemError(409, "included", "Part of the server", detail)
    try:
        with unused(context().store.database, needs):
            away = removal.put_away(path, folder)
    except InUseError as error:
        detail = message(
            "delete_in_use",
            "{jobs} jobs that have not ended need it; wait for them, or cancel them first",
            jobs=error.jobs,
        )
        raise ProblemError(409, "in-use", "In use", detail) from None
    except removal.NotOursError as error:
        raise ProblemError(409, "not-ours", "Not this server's", error.args[0]) from None
    removal.destroy(away)
