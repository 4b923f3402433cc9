"""The memory budget, and smaller limits after memory ran out."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

GPU_SHARE = 0.8  # of the GPU's memory that weights may take; the rest is for activations
CPU_SHARE = 0.5
SMALLEST_TILE = 256  # pixels; below this the seams show
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. PyTorch has no exception class for it on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def weight_bytes(*modules: torch.nn.Module) -> int:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def budget_bytes(setting: int | str, device: torch.device) -> int:
    """Bytes that loaded models may take together; `auto` is a share of what the device has."""
    if not isinstance(setting, str):
        return setting
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return int(CPU_SHARE * (machine if limit == "max" else min(machine, int(limit))))


@dataclass
class MemoryLimits:
    """How much of one model's work fits in memory at once. Shrinks when memory runs out."""

    max_coded: int  # pictures in one VAE call
    tile_side: int  # pixels; larger pictures go through the VAE in tiles
    can_offload: bool  # weights may wait in the CPU's memory while another part works
    max_rows: int = sys.maxsize  # of one UNet call; larger ones are cut
    offload: bool = False  # weights do wait there

    def shrink_denoising(self, rows: int) -> str | None:
        """Lower the limits after a UNet call of `rows` rows ran out of memory.

        Returns a note on what changed; None if nothing is left to lower.
        """
        rows = min(rows, self.max_rows)
        if rows > 1:
            self.max_rows = rows // 2
            return f"memory was short: UNet calls of at most {self.max_rows} row(s)"
        return self._offload()

    def shrink_coding(self, pictures: int, side: int) -> str | None:
        """Lower the limits after a VAE call of images of that longer side ran out of memory."""
        pictures = min(pictures, self.max_coded)
        if pictures > 1:
            self.max_coded = pictures // 2
            return f"memory was short: {self.max_coded} picture(s) at a time through the VAE"
        side = min(side, self.tile_side)
        if side > SMALLEST_TILE:
            self.tile_side = max(SMALLEST_TILE, side // 2)
            return f"memory was short: VAE in tiles of {self.tile_side} pixels"
        return self._offload()

    def _offload(self) -> str | None:
        if self.offload or not self.can_offload:
            return None
        self.offload = True
        return "memory was short: weights wait in the CPU's memory"
