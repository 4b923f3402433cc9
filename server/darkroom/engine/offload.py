"""Keeping weights in the CPU's memory while another part of a pipeline works."""

from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from diffusers.hooks.group_offloading import apply_group_offloading

from darkroom.engine import memory
from darkroom.engine.loading import DENOISERS
from darkroom.engine.memory import Offload


class Offloading:
    """Where the weights of one pipeline are; pipelines that share its networks share that.

    Args:
        pipeline: of diffusers.
        device: of the computation, an accelerator.
    """

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self._pipeline = pipeline
        self._device = device
        self._how = Offload.NONE
        self._encoders: list[Any] = []  # hooks of those that wait

    def begin(self, how: Offload) -> None:
        """Offload from now on. What is offloaded already is sent back, whatever a call has left."""
        if how is self._how:
            self.rest()
            return
        self._how, self._encoders = how, []
        match how:
            case Offload.ENCODERS:
                for name, part in self._pipeline.components.items():
                    if memory.is_encoder(name) and isinstance(part, torch.nn.Module):
                        self._encoders.append(cpu_offload_with_hook(part, self._device)[1])
                self.rest()
            case Offload.MODEL:
                self._pipeline.enable_model_cpu_offload(device=self._device)
            case Offload.GROUP:
                for name, part in self._pipeline.components.items():
                    if isinstance(part, torch.nn.Module):
                        self._group(part, blocks=name in DENOISERS)

    def _group(self, part: Any, blocks: bool) -> None:
        """Offload a network by its blocks, the next one on its way meanwhile, or by its layers.

        Blocks are moved when the network's `forward` is called, which a VAE's is not.
        """
        options: dict[str, Any] = {
            "onload_device": self._device,
            "offload_device": torch.device("cpu"),
            "offload_type": "block_level" if blocks else "leaf_level",
            "num_blocks_per_group": 1 if blocks else None,
            "use_stream": blocks and self._device.type == "cuda",
        }
        if hasattr(part, "enable_group_offload"):
            part.enable_group_offload(**options)
        else:
            apply_group_offloading(part, **options)

    def rest(self) -> None:
        """Send back what waits in the CPU's memory while it does not work.

        That is the text encoders, or every network where one alone has room. A network's hook sends
        back the one before it in diffusers' order, so the first one would come beside the denoiser;
        and one that a lack of memory has left half moved would seem to be there.
        """
        hooks = self._pipeline._all_hooks if self._how is Offload.MODEL else self._encoders
        for hook in hooks:
            hook.offload()
