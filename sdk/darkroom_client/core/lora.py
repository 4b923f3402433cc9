"""A low-rank adapter in a request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter that the server has, by name.

    Attributes:
        scale: how strongly it is applied, from -4 to 4.
    """

    name: str
    scale: float = 1.0
