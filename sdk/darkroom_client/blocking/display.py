"""How a picture and a job stand in a notebook."""

import builtins
from collections.abc import Iterator, Sequence
from typing import Protocol

from darkroom_client.core.errors import DarkroomError, NotFoundError
from darkroom_client.core.records import JobRecord
from darkroom_client.core.requests import ImageFormat
from darkroom_client.notebook import page
from darkroom_client.notebook.look import Look, Shown

SHOWN_PX = 256  # wide; the picture itself shows the whole of it
MOST = 8


class Fetched(Protocol):
    """A picture whose file can be had."""

    def bytes(self, image_format: ImageFormat | None = None) -> builtins.bytes: ...


class Displayed:
    """As itself."""

    def _repr_png_(self: Fetched) -> builtins.bytes:
        return self.bytes("png")


class Small(Protocol):
    """A picture that can be had smaller, as WebP."""

    def thumbnail(self, width: int) -> builtins.bytes: ...


class Made(Protocol):
    """A job and its pictures."""

    record: JobRecord

    @property
    def images(self) -> Sequence[Small]: ...


class DisplayedJob:
    """As words, and its first pictures."""

    def _repr_html_(self: Made) -> str:
        return page.html(Look.of(self.record, tuple(_first(self.images))))


def _first(images: Sequence[Small]) -> Iterator[Shown]:
    """As many as can be had. What cannot must not cost the words."""
    for image in images[:MOST]:
        try:
            yield Shown("image/webp", image.thumbnail(SHOWN_PX))
        except NotFoundError:
            continue  # deleted meanwhile
        except DarkroomError:
            return  # nor would the next be had, after as long a wait
