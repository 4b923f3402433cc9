"""What the engine asks of work that it only resumes."""

from typing import Protocol

from PIL import Image


class Resumable(Protocol):
    """A job's pictures, made one after the other by calls that are shared with nobody."""

    @property
    def exclusive(self) -> bool:
        """Whether others of the same model wait until it is done."""

    @property
    def step(self) -> int:
        """How many steps are done, over all images."""

    @property
    def steps(self) -> int:
        """How many there will be."""

    @property
    def index(self) -> int:
        """Of the image being made."""

    def resume(self) -> Image.Image | None:
        """Do one more step; the picture, when its image is done.

        Raises:
            Exception: what went wrong.
        """

    def close(self) -> None:
        """End it wherever it is."""
