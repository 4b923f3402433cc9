"""/images: stored pictures, thumbnails, other formats. /signed: the same, without a token.

/decode: pictures of callers, in a format that every browser shows.
"""

from flask import Blueprint, Response, request
from pydantic import BaseModel, Field

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, invalid_field, not_found
from darkroom.api.http import IMAGE_TYPES, read_query
from darkroom.api.openapi import IF_NONE_MATCH, Operation, route
from darkroom.errors import text_of
from darkroom.images import codec
from darkroom.queue.store import PictureInUseError
from darkroom.requests import OutputFormat, Schema
from darkroom.responses import Problem
from darkroom.storage.records import StoredPicture

blueprint = Blueprint("images", __name__)

# A picture never changes under its id; `private` keeps it out of shared caches.
CACHE = "private, max-age=31536000, immutable"


class ImageQuery(Schema):
    """Form in which a picture is sent."""

    w: int | None = Field(None, ge=16, le=2048, description="At most this wide, as WebP.")


class DecodeRequest(Schema):
    """A picture to decode."""

    image: str = Field(min_length=1, description="A file part, base64, or a data URI.")


class DecodeForm(DecodeRequest):
    """The same as a form."""

    image: str = Field(json_schema_extra={"format": "binary"})


class SignedQuery(BaseModel):
    """Query string of a signed URL."""

    expires: int = Field(ge=0, le=2**53, description="Seconds since the epoch.")
    signature: str = Field(min_length=1, max_length=100)
    token: str | None = Field(
        None, max_length=32, description="Id of the token that it was made for, if it was for one."
    )


@route(
    blueprint,
    "GET",
    "/images/<image_id>",
    Operation(
        {200: None, 304: None, 406: Problem},
        query=ImageQuery,
        sends=IMAGE_TYPES,
        takes=(IF_NONE_MATCH,),
    ),
)
def show_image(image_id: str) -> Response:
    """A picture's bytes, as stored unless `w` or `Accept` asks for another form."""
    return send_picture(image_id, {}, read_query(ImageQuery).w)


@route(blueprint, "DELETE", "/images/<image_id>", Operation({204: None, 409: Problem}))
def delete_image(image_id: str) -> Response:
    """Delete a picture, its previews, and how it was made."""
    here = context()
    find_picture(image_id, access.caller().sees)
    try:
        names = here.store.delete_picture(image_id, access.caller().sees)
    except PictureInUseError:
        raise ProblemError(
            409, "in-use", "In use", "a job that has not ended needs this picture; cancel it first"
        ) from None
    here.delete_files(names)
    return Response(status=204)


@route(
    blueprint,
    "POST",
    "/decode",
    Operation({200: None, 406: Problem}, json=DecodeRequest, form=DecodeForm, sends=IMAGE_TYPES),
)
def decode_image() -> Response:
    """Decode a picture, for browsers that cannot show its format, such as HEIC.

    Answers with its pixels, upright and in sRGB, without metadata. Nothing is stored.
    """
    here = context()
    output_format = _negotiate(OutputFormat.PNG)
    body = here.bodies.read(("image",))
    asked = body.validate(DecodeRequest)
    try:
        data = here.sources.decode("image", body.files.get("image", asked.image)).png
    except codec.PictureError as error:
        raise invalid_field("image", text_of(error)) from None
    if output_format is not OutputFormat.PNG:
        data = _transcoded(data, output_format)
    return Response(data, content_type=output_format.content_type)


@blueprint.get("/signed/<image_id>")
@access.open_to_all
def show_signed(image_id: str) -> Response:
    """A picture's bytes, by a signed URL.

    Pages of other sites may embed it: chat programs have their own.
    """
    here = context()
    query = read_query(SignedQuery)
    signed = _signed_name(image_id, query.token)
    left_s = here.signatures.left_s(signed, query.expires, query.signature)
    if left_s == 0 or not access.is_let_in(query.token, here.tokens):
        raise ProblemError(
            403,
            "signature",
            "Not with this address",
            "this address has expired or was never handed out; ask for the picture with a token",
        )
    response = _send(find_picture(image_id, None), {"Cross-Origin-Resource-Policy": "cross-origin"})
    response.headers["Cache-Control"] = f"private, max-age={left_s}"
    return response


def signed_address(image_id: str) -> str:
    """An absolute URL of one of the caller's pictures, valid for an hour without a token.

    Its host is that of the current request. It ends with the caller's token, too.
    """
    token_id = access.caller().token_id
    query = context().signatures.sign(_signed_name(image_id, token_id))
    token = f"&token={token_id}" if token_id else ""
    return f"{request.host_url}signed/{image_id}?{query}{token}"


def _signed_name(image_id: str, token_id: str | None) -> str:
    """What a signed URL's signature is for."""
    return image_id if token_id is None else f"{image_id} {token_id}"


def send_picture(image_id: str, headers: dict[str, str], width: int | None = None) -> Response:
    """Answer with one of the caller's pictures, or a thumbnail of so many pixels."""
    return _send(find_picture(image_id, access.caller().sees), headers, width)


def find_picture(image_id: str, client: str | None) -> StoredPicture:
    """A picture of a client, or of anybody for None. ProblemError 404 if there is none."""
    stored = context().store.picture(image_id, client)
    if stored is None:
        raise not_found(f"picture {image_id!r}")
    return stored


def _send(stored: StoredPicture, headers: dict[str, str], width: int | None = None) -> Response:
    output_format = _negotiate(OutputFormat(stored.content_type.removeprefix("image/")))
    content_type = output_format.content_type
    variant = "" if content_type == stored.content_type else f"-{output_format.value}"
    if width is not None:
        content_type, variant = "image/webp", f"-w{width}"
    response = Response(content_type=content_type, headers=headers)
    etag = stored.sha256 + variant
    response.set_etag(etag)
    response.headers["Cache-Control"] = CACHE
    response.headers["Vary"] = "Accept"
    if not request.if_none_match.contains(etag):
        data = read_file(stored.id)
        if width is not None:
            with context().rendering:
                data = codec.thumbnail(data, width)
        elif variant:
            data = _transcoded(data, output_format)
        response.data = data
    response.make_conditional(request)
    return response


def read_file(image_id: str) -> bytes:
    """A picture's bytes, as they are stored. ProblemError 404 if the file is gone."""
    try:
        return context().files.read(image_id)
    except FileNotFoundError:
        raise not_found(f"file of picture {image_id!r} any more") from None


def _transcoded(data: bytes, output_format: OutputFormat) -> bytes:
    """A picture's file in another format. ProblemError 406 if it is too large for that."""
    try:
        with context().rendering:
            return codec.transcode(data, output_format)
    except codec.PictureError as error:
        raise ProblemError(406, "not-acceptable", "Not acceptable", str(error)) from None


def _negotiate(stored: OutputFormat) -> OutputFormat:
    """The stored format if the caller accepts it, else the best accepted one."""
    accept = request.accept_mimetypes
    if not accept or accept.quality(stored.content_type) or accept.quality("application/json"):
        return stored
    best = accept.best_match(IMAGE_TYPES)
    if best is None:
        detail = "pictures come as PNG, JPEG or WebP"
        raise ProblemError(406, "not-acceptable", "Not acceptable", detail)
    return OutputFormat(best.removeprefix("image/"))
