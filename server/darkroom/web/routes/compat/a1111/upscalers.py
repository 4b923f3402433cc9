"""What makes pictures larger without drawing anything, by A1111's names."""

from dataclasses import dataclass

from darkroom.retouching import Filter

NONE = "None"
LANCZOS = "Lanczos"
NEAREST = "Nearest"
BUILT_IN = (NONE, LANCZOS, NEAREST)

# There, latents are enlarged before they are denoised again. Here it is always the picture.
LATENT = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)


@dataclass(frozen=True)
class Upscaler:
    """How a picture is enlarged.

    Attributes:
        filter: between its pixels.
        same: whether that is what was asked for.
    """

    filter: Filter
    same: bool


def find(name: str | None) -> Upscaler:
    """The upscaler of a name. What is not here, such as R-ESRGAN, is Lanczos."""
    wanted = (name or LANCZOS).strip().lower()
    if wanted in (NONE.lower(), LANCZOS.lower()):
        return Upscaler(Filter.LANCZOS, same=True)
    if wanted == NEAREST.lower():
        return Upscaler(Filter.NEAREST, same=True)
    return Upscaler(Filter.NEAREST if "nearest" in wanted else Filter.LANCZOS, same=False)
