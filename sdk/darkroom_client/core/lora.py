"""A low-rank adapter in a request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter that the server has, by name.

    Attributes:
        scale: how strongly it is applied, from -4 to 4.
        text_scale: how strongly it changes the text encoders; None is as `scale`.
    """

    name: str
    scale: float = 1.0
    text_scale: float | None = None

    def to_wire(self) -> dict[str, str | float]:
        given: dict[str, str | float] = {"name": self.name, "scale": self.scale}
        return given if self.text_scale is None else {**given, "text_scale": self.text_scale}
