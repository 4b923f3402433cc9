"""Keeping weights in the CPU's memory while another part of a pipeline works."""

from typing import Any

import torch


def offload(pipeline: Any, how: str, device: torch.device) -> None:
    """Offload all networks of a pipeline of diffusers; pipelines that share them are offloaded too.

    Args:
        how: `model` moves one network at a time; `group` a few layers at a time, and the next ones
            while these work: less memory than `model`, and slower.
        device: of the computation, an accelerator.
    """
    if how == "group":
        pipeline.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=device.type == "cuda",
        )
    else:
        pipeline.enable_model_cpu_offload(device=device)
