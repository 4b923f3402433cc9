"""What makes pictures larger, by A1111's names: filters that are built in, and networks."""

from dataclasses import dataclass

from darkroom.api.context import context
from darkroom.images.resize import Filter
from darkroom.requests import LatentResize
from darkroom.responses import UpscalerInfo

NONE = "None"
LANCZOS = "Lanczos"
NEAREST = "Nearest"
BUILT_IN = (NONE, LANCZOS, NEAREST)
BUILT_IN_SCALE = 4  # what A1111 says of its own

# Hires fix may enlarge latents instead, and does when it is not told what.
LATENT = {
    "Latent": LatentResize.BILINEAR,
    "Latent (antialiased)": LatentResize.BILINEAR_ANTIALIASED,
    "Latent (bicubic)": LatentResize.BICUBIC,
    "Latent (bicubic antialiased)": LatentResize.BICUBIC_ANTIALIASED,
    "Latent (nearest)": LatentResize.NEAREST,
    "Latent (nearest-exact)": LatentResize.NEAREST_EXACT,
}

# A1111's names for files that it downloads (`modules/realesrgan_model.py`), in small letters.
FILES = {
    "r-esrgan 4x+": "realesrgan_x4plus",
    "r-esrgan 4x+ anime6b": "realesrgan_x4plus_anime_6b",
    "r-esrgan 2x+": "realesrgan_x2plus",
}


@dataclass(frozen=True)
class Upscaler:
    """How a picture is enlarged.

    Attributes:
        filter: between its pixels; also for what a network leaves to be done.
        same: whether that is what was asked for.
        network: that does it first; None where it is the filter alone.
    """

    filter: Filter
    same: bool
    network: UpscalerInfo | None = None


def networks() -> tuple[UpscalerInfo, ...]:
    """Those on this box."""
    return tuple(entry.info for entry in context().upscalers.upscalers())


def names() -> tuple[str, ...]:
    """All that may be asked for."""
    return (*BUILT_IN, *(network.name for network in networks()))


def latent(name: str | None) -> LatentResize | None:
    """How latents are enlarged, if the name is of one that does."""
    if not name:
        return LatentResize.BILINEAR
    return next((how for known, how in LATENT.items() if known.lower() == name.lower()), None)


def find(name: str | None) -> Upscaler:
    """The upscaler of a name. What is not here is Lanczos."""
    wanted = (name or LANCZOS).strip().lower()
    if wanted in (NONE.lower(), LANCZOS.lower()):
        return Upscaler(Filter.LANCZOS, same=True)
    if wanted == NEAREST.lower():
        return Upscaler(Filter.NEAREST, same=True)
    for network in networks():
        if network.name.lower() in (wanted, FILES.get(wanted)):
            return Upscaler(Filter.LANCZOS, same=True, network=network)
    return Upscaler(Filter.NEAREST if "nearest" in wanted else Filter.LANCZOS, same=False)
