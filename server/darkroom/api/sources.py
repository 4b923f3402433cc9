"""The pictures of a request: uploads are decoded, references to stored pictures are looked up."""

import base64
import binascii
import secrets
from dataclasses import dataclass

from darkroom.api.errors import ProblemError
from darkroom.api.parse import check_bytes
from darkroom.images import codec
from darkroom.images.decoder import Decoded, Purpose
from darkroom.images.decoder_pool import BusyError, Decoders
from darkroom.queue.store import Store

REFERENCE = "image:"


@dataclass(frozen=True)
class Source:
    """A picture of a request.

    Attributes:
        upload: the decoded picture; None if it is one that is stored already.
        reference: `image:<id>`, of the stored picture or of the one to be stored.
        size: width and height in pixels.
    """

    upload: Decoded | None
    reference: str
    size: tuple[int, int]


class Sources:
    """Finds and decodes pictures.

    Args:
        store: knows the stored ones.
        decoders: for uploads.
        max_upload_bytes: of one picture.
    """

    def __init__(self, store: Store, decoders: Decoders, max_upload_bytes: int) -> None:
        self._store = store
        self._decoders = decoders
        self._max_upload_bytes = max_upload_bytes

    def find(self, name: str, value: str | bytes | Decoded, client: str | None) -> Source:
        """Look up or decode the picture in a field.

        Args:
            name: of the field.
            value: a file's bytes, a decoded picture, base64, a data URI, or `image:<id>`.
            client: whose stored pictures may be used; None is everybody's.

        Raises:
            PictureError: it is no usable picture; says why.
            ProblemError: 413, too large; 422, empty; 503, too many pictures wait.
        """
        if isinstance(value, str) and value.startswith(REFERENCE):
            stored = self._store.picture(value.removeprefix(REFERENCE), client)
            if stored is None:
                raise codec.PictureError(f"there is no picture {value.removeprefix(REFERENCE)!r}")
            return Source(None, value, (stored.width, stored.height))
        upload = value if isinstance(value, Decoded) else self.decode(name, value)
        reference = f"{REFERENCE}up{secrets.token_hex(12)}"
        return Source(upload, reference, (upload.width, upload.height))

    def decode(self, name: str, value: str | bytes, purpose: Purpose | None = None) -> Decoded:
        """Decode an upload in a process of its own.

        Args:
            name: of the field.
            value: a file's bytes, base64 or a data URI.
            purpose: what it is for; None is what the field's name says.

        Raises:
            PictureError: it is no usable picture; says why.
            ProblemError: 413, too large; 422, empty; 503, too many pictures wait.
        """
        if isinstance(value, str):
            value = from_base64(value)
            check_bytes(name, len(value), self._max_upload_bytes)
        try:
            return self._decoders.decode(value, purpose or Purpose(name))
        except BusyError:
            raise ProblemError(
                503,
                "busy",
                "Too busy",
                "too many pictures wait to be decoded; send yours again in a moment",
                headers={"Retry-After": "5"},
            ) from None


def from_base64(value: str) -> bytes:
    """The bytes in base64 or a data URI.

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
