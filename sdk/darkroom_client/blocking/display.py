"""How a picture stands in a notebook."""

import builtins
from typing import Protocol

from darkroom_client.core.requests import ImageFormat


class Fetched(Protocol):
    """A picture whose file can be had."""

    def bytes(self, image_format: ImageFormat | None = None) -> builtins.bytes: ...


class Displayed:
    """As itself."""

    def _repr_png_(self: Fetched) -> builtins.bytes:
        return self.bytes("png")
