"""How a job's pictures were made."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from darkroom_client.asynchronous.aside import aside
from darkroom_client.asynchronous.picture import AsyncImage
from darkroom_client.core.explanation import ExplainedImage


@dataclass(frozen=True)
class AsyncExplanation:
    """How those of a job's pictures were made that are ready."""

    job_id: str
    images: Sequence[ExplainedImage]
    pictures: Sequence[AsyncImage] = field(repr=False, compare=False)

    async def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write it to a folder, which is made if need be, and return the folder's path.

        Each picture has a folder of its own if the job has several: the picture, each map over it
        as PNG, the steps' pictures as WebP, and the rest in `explanation.json`.

        Raises:
            ImportError: Pillow is not installed; `pip install darkroom-client[pil]`.
            NotFoundError: a picture was deleted.
            OSError: a file cannot be written.
        """
        target = Path(folder)
        known = {picture.index: picture for picture in self.pictures}
        for image in self.images:
            picture = known[image.index]
            own = target / str(image.index + 1) if len(self.images) > 1 else target
            suffix = "." + picture.content_type.removeprefix("image/")
            await aside(_write, image, await picture.bytes(), suffix, own)
        return target


def _write(image: ExplainedImage, stored: bytes, suffix: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in image.files(stored, suffix):
        (folder / name).write_bytes(data)
