"""Skipping the deep part of the UNet at most steps: DeepCache (arXiv 2312.00858).

What the deep layers say changes slowly from step to step. So they are asked at every n-th step
only, and in between their last answer is used again; the outermost layers are always computed.
The picture is another one than without, close to it. The library of that name keeps one cache for
one picture; here each sample has its own, since samples in a call are at different steps.
"""

from typing import Any

import torch


class DeepCache:
    """The outermost layers of a UNet.

    Args:
        unet: a diffusers `UNet2DConditionModel`.
        interval: the deep part is computed at every so many steps; 2 at least.
    """

    def __init__(self, unet: Any, interval: int) -> None:
        self._interval = interval
        self._unet = unet

    def is_due(self, step: int, deep: torch.Tensor | None) -> bool:
        """Whether a sample at this step needs its deep part computed."""
        return deep is None or step % self._interval == 0

    def __call__(self, call: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """A UNet call, with what the deep part gave before, or None, under the name `deep`.

        Returns:
            The output (rows, C, h, w), and what the deep part gave, to be kept.
        """
        call = dict(call)
        deep = call.pop("deep")
        return self._whole(call) if deep is None else (self._outer(call, deep), deep)

    def _whole(self, call: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor] = []

        def keep(_block: Any, _arguments: Any, given: dict[str, Any]) -> None:
            kept.append(given["hidden_states"])

        hook = self._unet.up_blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            predicted = self._unet(**call, return_dict=False)[0]
        finally:
            hook.remove()
        return predicted, kept[0]

    def _outer(self, call: dict[str, Any], deep: torch.Tensor) -> torch.Tensor:
        """The outermost layers only, as `UNet2DConditionModel.forward` calls them."""
        unet, words = self._unet, call["encoder_hidden_states"]
        mask = call["encoder_attention_mask"]
        if mask is not None:
            mask = ((1 - mask.to(call["sample"].dtype)) * -10000.0).unsqueeze(1)
        time = unet.get_time_embed(sample=call["sample"], timestep=call["timestep"])
        told = unet.time_embedding(time, call["timestep_cond"])
        more = unet.get_aug_embed(
            emb=told, encoder_hidden_states=words, added_cond_kwargs=call["added_cond_kwargs"] or {}
        )
        told = told if more is None else told + more
        first, last = unet.down_blocks[0], unet.up_blocks[-1]

        def read(block: Any) -> dict[str, Any]:
            if not getattr(block, "has_cross_attention", False):
                return {}
            return {"encoder_hidden_states": words, "encoder_attention_mask": mask}

        begun = unet.conv_in(call["sample"])
        _, passed = first(hidden_states=begun, temb=told, **read(first))
        passed = (begun, *passed)[: len(last.resnets)]  # without what goes to the deep part
        ended = last(hidden_states=deep, temb=told, res_hidden_states_tuple=passed, **read(last))
        normal = unet.conv_act(unet.conv_norm_out(ended)) if unet.conv_norm_out else ended
        predicted: torch.Tensor = unet.conv_out(normal)
        return predicted
