"""/fleet: boxes join with a code, and then ask with a key of their own. See `ops/fleet`.

The routes are for `darkroom join` alone, and not part of the API's document.
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flask import Blueprint, Response, request

from darkroom.api.auth import access, origin
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid_field, not_found
from darkroom.api.http import send_model

if TYPE_CHECKING:
    from darkroom.storage.boxes import Box, Boxes

blueprint = Blueprint("fleet", __name__)

KEY = "X-Darkroom-Box"
PART_BYTES = 8 * 2**20  # of a file, in one answer


@blueprint.post("/fleet/boxes")
@access.open_to_all
def join() -> Response:
    """Exchange a code of `darkroom fleet code` for a role of the box's own, and all it needs."""
    from darkroom.ops.fleet.handover import JoinRequest, handover
    from darkroom.storage.boxes import BoxError, NotAllowedError, WrongCodeError

    here = context()
    boxes = _boxes()
    if request.scheme != "https":
        _refuse(403, "a box joins over TLS alone, because it gets the database's password")
    asked = here.bodies.read_json(JoinRequest)
    address = origin.canonical(request.remote_addr)
    here.guesses.check(address)
    try:
        box, secret = boxes.join(asked.code, asked.name)
    except WrongCodeError as error:
        if here.guesses.count_code():
            here.tokens.drop_codes()
        here.guesses.count(address)
        _refuse(403, str(error))
    except NotAllowedError as error:
        _refuse(500, str(error))
    except BoxError as error:
        _refuse(409, str(error))
    made = handover(here.settings, box.name, box.role, secret)
    return send_model(made.model_copy(update={"secret": secret}), 201)


@blueprint.get("/fleet/boxes/own")
@access.open_to_all
def show_box() -> Response:
    """What a box is told now: Ray's token changes when another one is removed."""
    from darkroom.ops.fleet.handover import handover

    box, secret = _box()
    return send_model(handover(context().settings, box.name, box.role, secret))


@blueprint.get("/fleet/models")
@access.open_to_all
def list_head_models() -> Response:
    """The names of the models here, and the files in the data folder that they are in."""
    from darkroom.ops.fleet.handover import FileOfModel, HeadModels

    _box()
    here = context()
    files = tuple(
        FileOfModel(path=path, bytes=file.stat().st_size) for path, file in _files().items()
    )
    names = tuple(entry.info.name for entry in here.catalog.entries())
    return send_model(HeadModels(names=names, files=files))


@blueprint.get("/fleet/files")
@access.open_to_all
def send_part() -> Response:
    """A part of a file, from `offset`: at most 8 MiB, nothing at its end."""
    _box()
    try:
        offset = int(request.args.get("offset", "0"))
    except ValueError:
        offset = -1
    if offset < 0:
        raise invalid_field("offset", "it has to be a number of bytes")
    with _file().open("rb") as file:
        file.seek(offset)
        return Response(file.read(PART_BYTES), content_type="application/octet-stream")


@blueprint.get("/fleet/digests")
@access.open_to_all
def send_digest() -> Response:
    """The SHA-256 of a file, hexadecimal."""
    _box()
    found = sha256()
    with _file().open("rb", buffering=0) as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return Response(found.hexdigest(), content_type="text/plain")


def _boxes() -> "Boxes":
    """The boxes; ProblemError 404 where one box serves alone."""
    from darkroom.ops.fleet import handover

    here = context()
    try:
        handover.check(here.settings)
    except handover.NoFleetError as error:
        raise ProblemError(404, "no-fleet", "No fleet", str(error)) from None
    from darkroom.storage.boxes import Boxes  # needs psycopg

    return Boxes(here.database)


def _box() -> "tuple[Box, str]":
    """The box that asks, and its secret; ProblemError 401 if it is none."""
    address = origin.canonical(request.remote_addr)
    name, _, secret = request.headers.get(KEY, "").partition(":")
    box = _boxes().find(name, secret)
    if box is None:
        context().guesses.count(address)
        raise ProblemError(
            401,
            "no-box",
            "No box of this fleet",
            "this box has not joined, or was removed; `darkroom fleet code` on the first box makes "
            "a code to join with",
        )
    return box, secret


def _refuse(status: int, detail: str) -> NoReturn:
    raise ProblemError(status, "not-joined", "Not joined", detail)


def _file() -> Path:
    """The file that is asked for: one of those that are listed, so that no path leads elsewhere."""
    path = request.args.get("path", "")
    found = _files().get(path)
    if found is None:
        raise not_found(f"file {path!r}")
    return found


def _files() -> dict[str, Path]:
    """The files of models in the data folder, by their paths in it."""
    settings = context().settings
    found = {}
    folders = (
        settings.models_dir,
        settings.loras_dir,
        settings.embeddings_dir,
        settings.upscalers_dir,
    )
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner[:] = [name for name in inner if not name.startswith(".")]
            for name in names:
                file = Path(place, name)
                if not name.startswith(".") and file.is_file():
                    found[str(file.relative_to(settings.data_dir))] = file
    return found
