"""The interface of unbatched work: the engine only resumes it."""

from typing import Protocol

from PIL import Image


class Resumable(Protocol):
    """Makes a job's images one after the other, without sharing calls."""

    @property
    def exclusive(self) -> bool:
        """Whether other jobs of the same model wait until this one has ended."""

    @property
    def step(self) -> int:
        """Finished steps over all images."""

    @property
    def steps(self) -> int:
        """All steps over all images."""

    @property
    def images(self) -> int:
        """How many images there will be."""

    @property
    def index(self) -> int:
        """Index of the current image."""

    def resume(self) -> Image.Image | None:
        """Do one more step; the picture, when its image is done.

        Raises:
            Exception: the failure of the call.
        """

    def close(self) -> None:
        """Stop at the current step and free what it holds."""
