"""The memory budget, and smaller limits after memory ran out."""

import contextlib
import enum
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from darkroom.errors import message

GPU_SHARE = 0.8  # of the GPU's memory that weights may take; the rest is for activations
CPU_SHARE = 0.5
SMALLEST_TILE = 256  # pixels; below this the seams show
CALM_CALLS = 32  # without an error, before more is tried; doubles whenever that fails
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CPUS, MEMORY = Path("/proc/cpuinfo"), Path("/proc/meminfo")


class Offload(enum.StrEnum):
    """Which weights wait in the CPU's memory while another part of a model works."""

    NONE = "none"
    ENCODERS = "encoders"  # the text encoders, once a prompt is encoded
    MODEL = "model"  # every network but the one that works
    GROUP = "group"  # all layers but some of the one that works: slower, with less memory

    def keeps(self, part: str) -> bool:
        """Whether the weights of a part, by its name, wait in the CPU's memory."""
        return self in (Offload.MODEL, Offload.GROUP) or (
            self is Offload.ENCODERS and is_encoder(part)
        )

    @property
    def next(self) -> "Offload | None":
        """What takes less memory, where that is short; None if nothing is left to try."""
        return {Offload.NONE: Offload.ENCODERS, Offload.ENCODERS: Offload.MODEL}.get(self)


def is_encoder(part: str) -> bool:
    """Whether a part of a pipeline, by its name, is a text encoder."""
    return part.startswith("text_encoder")


def offload_for(parts: Mapping[str, int], budget: int) -> Offload:
    """How to begin with a model of parts of so many bytes: it may fit without its text encoders."""
    encoders = any(is_encoder(part) and size for part, size in parts.items())
    return Offload.ENCODERS if encoders and sum(parts.values()) > budget else Offload.NONE


def accelerator_bytes(parts: Mapping[str, int], offload: Offload) -> int:
    """What a model of parts of so many bytes takes of the budget.

    All of it where each of its networks needs a place in turn.
    """
    if offload is Offload.ENCODERS:
        return sum(size for part, size in parts.items() if not is_encoder(part))
    return sum(parts.values())


def weight_bytes(module: torch.nn.Module) -> int:
    return sum(map(_bytes, module.parameters()))


def _bytes(weight: torch.Tensor) -> int:
    """Bytes of a tensor, which may be made of others: a quantised one of values and scales."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.numel() * weight.element_size()
    names, _ = weight.__tensor_flatten__()
    return sum(_bytes(getattr(weight, name)) for name in names)


def budget_bytes(setting: int | str, device: torch.device) -> int:
    """Bytes that loaded models may take together; `auto` is a share of what the device has."""
    if not isinstance(setting, str):
        return setting
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(CPU_SHARE * _machine_bytes())


def device_name(device: torch.device) -> str:
    """What the GPU or the CPU is called; empty if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in CPUS.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def free_bytes(device: torch.device) -> int | None:
    """Of the device's memory, whoever uses the rest; None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, ValueError):
        for line in MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _machine_bytes() -> int:
    """Memory of the machine, or of the container that this runs in."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return machine if limit == "max" else min(machine, int(limit))


@dataclass
class MemoryLimits:
    """How much of one model's work fits in memory at once.

    Shrinks when memory runs out, and grows again after `CALM_CALLS` calls without an error. A call
    that then runs out doubles the number of calls until the next attempt.

    Attributes:
        most_coded: pictures in one VAE call when memory is not short.
        widest_tile: pixels; larger pictures go through the VAE in tiles.
        can_offload: more weights than now may wait in the CPU's memory while another part works.
            Once they do, they go on doing so.
    """

    most_coded: int
    widest_tile: int
    can_offload: bool
    max_pixels: int = sys.maxsize  # of all rows of one call of the denoiser; larger ones are cut
    offload: Offload = Offload.NONE
    max_coded: int = 0
    tile_side: int = 0
    _calm: int = 0
    _patience: int = CALM_CALLS
    _grew: bool = False  # since memory last ran out

    def __post_init__(self) -> None:
        self.max_coded = self.max_coded or self.most_coded
        self.tile_side = self.tile_side or self.widest_tile

    def rows(self, area: int) -> int:
        """Rows of so many pixels in one call of the denoiser, at least one."""
        return max(1, self.max_pixels // area)

    def shrink_denoising(self, rows: int, area: int) -> str | None:
        """Lower the limits after a call of `rows` rows of `area` pixels each ran out of memory.

        Returns a note on what changed; None if nothing is left to lower.
        """
        self._ran_out()
        rows = min(rows, self.rows(area))
        if rows > 1:
            self.max_pixels = rows // 2 * area
            return message(
                "memory_rows",
                "memory was short: calls of at most {rows} row(s) of this size",
                rows=rows // 2,
            )
        return self._offload()

    def shrink_coding(self, pictures: int, side: int) -> str | None:
        """Lower the limits after a VAE call of images of that longer side ran out of memory."""
        self._ran_out()
        pictures = min(pictures, self.max_coded)
        if pictures > 1:
            self.max_coded = pictures // 2
            return message(
                "memory_pictures",
                "memory was short: {pictures} picture(s) at a time through the VAE",
                pictures=self.max_coded,
            )
        side = min(side, self.tile_side)
        if side > SMALLEST_TILE:
            self.tile_side = max(SMALLEST_TILE, side // 2)
            return message(
                "memory_tiles",
                "memory was short: VAE in tiles of {side} pixels",
                side=self.tile_side,
            )
        return self._offload()

    def worked(self) -> bool:
        """Count a call that did not run out of memory; returns whether limits grew by it."""
        lowered = self.max_pixels < sys.maxsize or self.max_coded < self.most_coded
        if not lowered and self.tile_side >= self.widest_tile:
            return False
        self._calm += 1
        if self._calm < self._patience:
            return False
        self._calm = 0
        self._grew = True
        # Past 2⁴⁰ pixels there is no call that the limit would cut.
        grown = 2 * self.max_pixels
        self.max_pixels = grown if grown < 2**40 else sys.maxsize
        self.max_coded = min(self.most_coded, 2 * self.max_coded)
        self.tile_side = min(self.widest_tile, 2 * self.tile_side)
        return True

    def _ran_out(self) -> None:
        if self._grew:
            self._patience *= 2
        self._calm, self._grew = 0, False

    def _offload(self) -> str | None:
        less = self.offload.next if self.can_offload else None
        if less is None:
            return None
        self.offload = less
        if less is Offload.ENCODERS:
            return message(
                "memory_encoders", "memory was short: text encoders wait in the CPU's memory"
            )
        return message("memory_weights", "memory was short: weights wait in the CPU's memory")
