"""POST /sdapi/v1/png-info: how a picture says it was made."""

from flask import Blueprint, Response, jsonify

from darkroom.api.context import context
from darkroom.api.errors import invalid
from darkroom.api.parse import check_bytes
from darkroom.api.parsing import sources
from darkroom.compat.a1111 import bodies, infotext
from darkroom.images import codec, png_text
from darkroom.responses import FieldError

blueprint = Blueprint("a1111_png_info", __name__, url_prefix="/sdapi/v1")

LINE = "parameters"


@blueprint.post("/png-info")
def png_info() -> Response:
    """The texts in a PNG, and what the one that says how it was made means.

    A picture of another format has none that we write or read: that is an empty answer.
    """
    image = bodies.read().fields.get("image")
    if not isinstance(image, str) or not image:
        raise invalid([FieldError(pointer="#/image", detail="is required")])
    try:
        data = sources.from_base64(image)
    except codec.PictureError as error:
        raise invalid([FieldError(pointer="#/image", detail=str(error))]) from None
    check_bytes("image", len(data), context().settings.web.max_upload_bytes)
    try:
        items = png_text.read(data)
    except png_text.NotPngError:
        items = {}
    info = items.get(LINE, "")
    return jsonify(info=info, items=items, parameters=infotext.parse(info))
