"""Pictures that the server keeps."""

import builtins
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from darkroom_client.asynchronous.aside import aside
from darkroom_client.asynchronous.display import Displayed
from darkroom_client.asynchronous.transport import AsyncTransport
from darkroom_client.core import call
from darkroom_client.core.records import ImageRecord
from darkroom_client.core.requests import ImageFormat
from darkroom_client.core.sources import REFERENCE

if TYPE_CHECKING:
    import PIL.Image

FORMATS: dict[str, ImageFormat] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}


@dataclass(frozen=True)
class AsyncPicture(Displayed):
    """A picture of which only the id is known. It may stand wherever a request takes a picture.

    Every method but `reference` raises NotFoundError if there is no such picture, and
    ConnectionFailedError.
    """

    id: str
    transport: AsyncTransport = field(repr=False, compare=False, kw_only=True)

    @property
    def reference(self) -> str:
        """The form in which requests name it: `image:<id>`."""
        return REFERENCE + self.id

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file, and return the file's path.

        The name's suffix chooses the format (.png, .jpg, .jpeg, .webp); without one it is written
        as stored. Only the stored form carries how the picture was made.

        Raises:
            ValueError: another suffix.
            OSError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix and path.suffix.lower() not in FORMATS:
            raise ValueError(f"cannot write {path.suffix}; there are {', '.join(FORMATS)}")
        data = await self.bytes(FORMATS.get(path.suffix.lower()))
        await aside(path.write_bytes, data)
        return path

    async def thumbnail(self, width: int) -> builtins.bytes:
        """A WebP file at most `width` pixels wide, 16 to 2048."""
        return (await self.transport.send(call.show_image(self.id, width=width))).body

    async def pil(self) -> "PIL.Image.Image":
        """The picture for Pillow.

        Raises:
            ImportError: Pillow is not installed; `pip install darkroom-client[pil]`.
        """
        import PIL.Image

        picture = PIL.Image.open(io.BytesIO(await self.bytes()))
        await aside(picture.load)
        return picture

    async def show(self) -> None:
        """Open the picture in this desktop's viewer.

        Raises:
            ImportError: Pillow is not installed; `pip install darkroom-client[pil]`.
        """
        await aside((await self.pil()).show)

    async def delete(self) -> None:
        """Have the server forget the picture.

        Raises:
            APIError: 409 while a job that has not ended needs it.
        """
        await self.transport.send(call.delete_image(self.id))

    # Last, for from here on `bytes` is this method's name in the class.
    async def bytes(self, image_format: ImageFormat | None = None) -> builtins.bytes:
        """The picture as a file's bytes, as stored or in another format."""
        return (await self.transport.send(call.show_image(self.id, image_format))).body


@dataclass(frozen=True)
class AsyncImage(ImageRecord, AsyncPicture):
    """A picture that a job made."""

    @classmethod
    def of(cls, record: ImageRecord, transport: AsyncTransport) -> Self:
        return cls(**vars(record), transport=transport)
