"""The pictures of a request: found, or decoded from what came along."""

import base64
import binascii
import secrets
from dataclasses import dataclass

from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.parse import check_bytes
from darkroom.images import codec
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.decoder_pool import BusyError

REFERENCE = "image:"


@dataclass(frozen=True)
class Source:
    """A picture of the request.

    Attributes:
        upload: decoded, when it came along; None when it is one we have.
        reference: `image:<id>`, of the stored picture or of the one to be stored.
        size: width and height in pixels.
    """

    upload: Decoded | None
    reference: str
    size: tuple[int, int]


def find(name: str, value: str | bytes | Decoded) -> Source:
    """Find or decode one picture.

    Args:
        name: of the field.
        value: what it holds: a file's bytes, the picture in them, or text.

    Raises:
        PictureError: says what is wrong with it.
        ProblemError: 503, nobody is free to decode it.
    """
    if isinstance(value, str) and value.startswith(REFERENCE):
        stored = context().store.picture(value.removeprefix(REFERENCE), access.caller().sees)
        if stored is None:
            raise codec.PictureError(f"there is no picture {value.removeprefix(REFERENCE)!r}")
        return Source(None, value, (stored.width, stored.height))
    upload = value if isinstance(value, Decoded) else decode(name, value)
    reference = f"{REFERENCE}up{secrets.token_hex(12)}"
    return Source(upload, reference, (upload.width, upload.height))


def decode(name: str, value: str | bytes, purpose: Purpose | None = None) -> Decoded:
    """Decode a picture that came along, in a process of its own.

    Args:
        name: of the field.
        value: a file's bytes, or base64.
        purpose: what it is for; by the field's name where it is None.

    Raises:
        PictureError: says what is wrong with it.
        ProblemError: 413, or 503, nobody is free to decode it.
    """
    if isinstance(value, str):
        value = from_base64(value)
        check_bytes(name, len(value), context().settings.web.max_upload_bytes)
    try:
        return context().decoders.decode(value, purpose or Purpose(name))
    except BusyError:
        raise ProblemError(
            503,
            "busy",
            "Too busy",
            "too many pictures wait to be decoded; send yours again in a moment",
            headers={"Retry-After": "5"},
        ) from None


def from_base64(value: str) -> bytes:
    """The bytes of base64 or a data URI.

    Raises:
        PictureError: it is neither.
    """
    if value.startswith(("http://", "https://")):
        raise codec.PictureError("is an address; nothing is ever fetched, send the bytes")
    if value.startswith("data:"):
        head, _, value = value.partition(",")
        if not head.endswith(";base64"):
            raise codec.PictureError("is a data URI without base64")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise codec.PictureError("is neither base64 nor an image:<id> reference") from None
