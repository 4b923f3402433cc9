"""/images: stored pictures, thumbnails, other formats. /signed: the same, without a token."""

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError, not_found
from darkroom.api.http import read_query
from darkroom.api.openapi import route
from darkroom.api.operations import IF_NONE_MATCH, IMAGES
from darkroom.images import codec
from darkroom.requests import OutputFormat
from darkroom.responses import Problem
from darkroom.storage.records import StoredPicture

blueprint = Blueprint("images", __name__)

# A picture never changes under its id; `private` keeps it out of shared caches.
CACHE = "private, max-age=31536000, immutable"


class ImageQuery(BaseModel):
    """Form in which a picture is sent."""

    model_config = ConfigDict(extra="forbid")

    w: int | None = Field(None, ge=16, le=2048, description="At most this wide, as WebP.")


class SignedQuery(BaseModel):
    """Query string of a signed URL."""

    expires: int = Field(ge=0, le=2**53, description="Seconds since the epoch.")
    signature: str = Field(min_length=1, max_length=100)


@route(
    blueprint,
    "GET",
    "/images/<image_id>",
    query=ImageQuery,
    answers={200: None, 304: None, 406: Problem},
    sends={200: IMAGES},
    takes=(IF_NONE_MATCH,),
    tag="images",
)
def show_image(image_id: str) -> Response:
    """A picture's bytes, as stored unless `w` or `Accept` asks for another form."""
    return send_picture(image_id, {}, read_query(ImageQuery).w)


@route(
    blueprint,
    "DELETE",
    "/images/<image_id>",
    answers={204: None, 409: Problem},
    tag="images",
)
def delete_image(image_id: str) -> Response:
    """Delete a picture. A job's previews are deleted with its first picture."""
    here = context()
    if here.store.picture(image_id, access.caller().sees) is None:
        raise not_found(f"picture {image_id!r}")
    if here.store.picture_in_use(image_id):
        raise ProblemError(
            409, "in-use", "In use", "a job that has not ended needs this picture; cancel it first"
        )
    if here.store.delete_picture(image_id, access.caller().sees):
        here.files.delete(image_id)
    return Response(status=204)


@blueprint.get("/signed/<image_id>")
@access.open_to_all
def show_signed(image_id: str) -> Response:
    """A picture's bytes, by a signed URL.

    Pages of other sites may embed it: chat programs have their own.
    """
    here = context()
    query = read_query(SignedQuery)
    left_s = here.signatures.left_s(image_id, query.expires, query.signature)
    if left_s == 0 or not _maker_may_stay(image_id):
        raise ProblemError(
            403,
            "signature",
            "Not with this address",
            "this address has expired or was never handed out; ask for the picture with a token",
        )
    stored = here.store.picture(image_id, None)
    if stored is None:
        raise not_found(f"picture {image_id!r}")
    response = send_stored(stored, {"Cross-Origin-Resource-Policy": "cross-origin"})
    response.headers["Cache-Control"] = f"private, max-age={left_s}"
    return response


def signed_address(image_id: str) -> str:
    """An absolute URL of one of the caller's pictures, valid for an hour without a token.

    Its host is that of the current request.
    """
    query = context().signatures.sign(image_id)
    return f"{request.host_url}signed/{image_id}?{query}"


def send_picture(image_id: str, headers: dict[str, str], width: int | None = None) -> Response:
    """Answer with one of the caller's pictures.

    Args:
        image_id: of an output or an upload.
        headers: to add.
        width: of a thumbnail in pixels, or None for the picture itself.
    """
    stored = context().store.picture(image_id, access.caller().sees)
    if stored is None:
        raise not_found(f"picture {image_id!r}")
    return send_stored(stored, headers, width)


def send_stored(
    stored: StoredPicture, headers: dict[str, str], width: int | None = None
) -> Response:
    """Answer with a picture without checking who may see it; see `send_picture`."""
    output_format = _negotiate(OutputFormat(stored.content_type.removeprefix("image/")))
    content_type = output_format.content_type
    variant = "" if content_type == stored.content_type else f"-{output_format.value}"
    if width is not None:
        content_type, variant = "image/webp", f"-w{width}"
    response = Response(content_type=content_type, headers=headers)
    response.set_etag(stored.sha256 + variant)
    response.headers["Cache-Control"] = CACHE
    response.headers["Vary"] = "Accept"
    if not request.if_none_match.contains(stored.sha256 + variant):
        response.data = _bytes(stored.id, output_format, width, bool(variant))
    response.make_conditional(request)
    return response


def read_file(image_id: str) -> bytes:
    """A picture's bytes, as they are stored.

    Raises:
        ProblemError: 404, the file is gone.
    """
    try:
        return context().files.read(image_id)
    except FileNotFoundError:
        raise not_found(f"file of picture {image_id!r} any more") from None


def _maker_may_stay(image_id: str) -> bool:
    """Whether the client that made the picture still has access: URLs end with its token."""
    job_id, _, _ = image_id.rpartition("-")
    client = context().store.owners({job_id}).get(job_id)
    return client is not None and access.is_let_in(client)


def _bytes(image_id: str, output_format: OutputFormat, width: int | None, changed: bool) -> bytes:
    data = read_file(image_id)
    if not changed:
        return data
    with context().rendering:
        if width is not None:
            return codec.thumbnail(data, width)
        return codec.transcode(data, output_format)


def _negotiate(stored: OutputFormat) -> OutputFormat:
    """The stored format if the caller accepts it, else the best accepted one."""
    accept = request.accept_mimetypes
    if not accept or accept.quality(stored.content_type) or accept.quality("application/json"):
        return stored
    best = accept.best_match([output_format.content_type for output_format in OutputFormat])
    if best is None:
        raise ProblemError(
            406, "not-acceptable", "Not acceptable", "pictures come as PNG, JPEG or WebP"
        )
    return OutputFormat(best.removeprefix("image/"))
