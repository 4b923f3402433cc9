"""The upscalers on this server, described by their files' headers.

They are of the ESRGAN family: RRDB networks with three naming schemes of their keys (ESRGAN,
BSRGAN, Real-ESRGAN; arXiv 1809.00219, 2107.10833), and Real-ESRGAN's small networks, called
Compact. They are recognised as in spandrel, which loads them, but from shapes alone. Two Compact
networks are part of the package: tintype-x2 and tintype-x4.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from darkroom.catalog.addons import NO_FOLDERS, AddonEntry, AddonFolder
from darkroom.catalog.listing import INCLUDED_UPSCALERS, Listed, SharedFolders
from darkroom.catalog.models import UnknownModelError
from darkroom.catalog.weight_files import Header, UnusableAddonError
from darkroom.config import Settings
from darkroom.responses import BrokenFile, UpscalerInfo

LIBRARY = "spandrel"
MAX_PIXELS = 16_777_216  # of what is made: 4096²; the worker takes two seconds for the PNG
NO_LIBRARY = (
    "cannot be loaded without spandrel; install it by `pip install --no-deps spandrel einops`"
)
RGB = 3
PREFIXES = ("module.", "netG.")  # of all keys, left over from training
Shapes = Mapping[str, tuple[int, ...]]


class UnknownUpscalerError(UnknownModelError):
    """There is no upscaler of that name on this server, or its file cannot be used."""


@dataclass(frozen=True)
class UpscalerEntry(AddonEntry):
    info: UpscalerInfo

    @property
    def included(self) -> bool:
        """Whether it is part of the package."""
        return self.path.parent == INCLUDED_UPSCALERS


class UpscalerCatalog(AddonFolder[UpscalerEntry]):
    """The upscalers on this server, by name."""

    def __init__(self, upscalers_dir: Path, shared: SharedFolders = NO_FOLDERS) -> None:
        super().__init__(
            upscalers_dir, _describe, "upscaler", UnknownUpscalerError, shared, INCLUDED_UPSCALERS
        )

    @classmethod
    def of(cls, settings: Settings) -> "UpscalerCatalog":
        """The upscalers that the settings name."""
        return cls(settings.upscalers_dir, SharedFolders(settings.models.paths))

    def read(self) -> tuple[tuple[UpscalerEntry, ...], tuple[BrokenFile, ...]]:
        entries, broken = super().read()
        if entries and find_spec(LIBRARY) is None:
            lacking = (
                BrokenFile(file=f"{entry.info.name}{entry.path.suffix}", reason=NO_LIBRARY)
                for entry in entries
            )
            return (), (*lacking, *broken)
        return entries, broken

    def find_for(self, scale: float, pixels: int) -> UpscalerEntry:
        """Choose an upscaler where the caller names none.

        It makes pictures large enough. One that takes pictures of this size is preferred, then the
        owner's to those of the package, then the smallest, then the first by name.

        Args:
            scale: that is asked for.
            pixels: of the picture.

        Raises:
            UnknownUpscalerError: none reaches the scale.
        """
        entries, broken = self.read()
        able = [entry for entry in entries if entry.info.scale >= scale]
        if not able:
            seen = f"{broken[0].file} {broken[0].reason}" if broken and not entries else None
            raise UnknownUpscalerError(
                f"there is no upscaler on this server that makes pictures {scale:g} times larger "
                f"({seen or 'see GET /upscalers'})"
            )
        return min(able, key=lambda e: (pixels > e.info.max_pixels, e.included, e.info.scale))


def _describe(listed: Listed, header: Header) -> UpscalerEntry:
    shapes = _without_prefix(header.shapes)
    if "conv_first.weight" in shapes and "conv_last.weight" in shapes:
        doublings = len({key for key in shapes if re.fullmatch(r"(upconv|conv_up)\d\.weight", key)})
        scale = _rrdb(shapes["conv_first.weight"], shapes["conv_last.weight"], 2**doublings)
        architecture = "ESRGAN"
    elif "model.1.sub.0.RDB1.conv1.0.weight" in shapes and "model.0.weight" in shapes:
        last = _last(shapes, "model")
        # A convolution, the trunk, three layers for each doubling, then three more.
        scale = _rrdb(
            shapes["model.0.weight"], shapes[f"model.{last}.weight"], 2 ** ((last - 4) // 3)
        )
        architecture = "ESRGAN"
    elif "body.0.weight" in shapes and len(shapes["body.0.weight"]) == 4:
        scale = _compact(shapes["body.0.weight"], shapes[f"body.{_last(shapes, 'body')}.weight"])
        architecture = "Compact"
    else:
        raise UnusableAddonError("is no upscaler of the ESRGAN family")
    if scale < 2:
        raise UnusableAddonError("does not make pictures larger")
    info = UpscalerInfo(
        name=listed.key,
        architecture=architecture,
        scale=scale,
        max_pixels=MAX_PIXELS // scale**2,
    )
    return UpscalerEntry(listed.path, info)


def _without_prefix(shapes: Shapes) -> Shapes:
    for prefix in PREFIXES:
        if shapes and all(key.startswith(prefix) for key in shapes):
            return {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    return shapes


def _last(shapes: Shapes, name: str) -> int:
    """The largest n of the keys `name`.n.weight that are weights of convolutions."""
    pattern = re.compile(rf"{name}\.(\d{{1,4}})\.weight")
    found = ((pattern.fullmatch(key), shape) for key, shape in shapes.items())
    numbers = [int(match[1]) for match, shape in found if match and len(shape) == 4]
    if not numbers:
        raise UnusableAddonError(f"is damaged: its {name} has no convolutions")
    return max(numbers)


def _rrdb(first: tuple[int, ...], last: tuple[int, ...], scale: int) -> int:
    """The scale of an RRDB network; some first fold 2×2 or 4×4 pixels into channels."""
    if len(first) != 4 or len(last) != 4:
        raise UnusableAddonError("is damaged: its first or last layer is no convolution")
    folded = {RGB: 1, 4 * RGB: 2, 16 * RGB: 4}.get(first[1])
    if last[0] != RGB or folded is None:
        raise UnusableAddonError("is not for pictures of red, green and blue")
    return scale // folded


def _compact(first: tuple[int, ...], last: tuple[int, ...]) -> int:
    """The scale of a Compact network: the square root of the output pixels per input pixel."""
    scale = math.isqrt(last[0] // RGB)
    if first[1] != RGB or last[0] != RGB * scale**2:
        raise UnusableAddonError("is not for pictures of red, green and blue")
    return scale
