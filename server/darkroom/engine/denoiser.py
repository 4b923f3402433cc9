"""One UNet call for many samples, and DeepCache, which shortens most calls."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from darkroom.engine import calls
from darkroom.engine.adapters import Adapters, LoraSet
from darkroom.engine.calls import Call
from darkroom.engine.explain.unets import explained
from darkroom.engine.openvino.conversion import Conversion
from darkroom.engine.sample import UNetSample


class DeepCache:
    """Skips the deep part of a UNet at most steps (arXiv 2312.00858).

    The output of the deep layers changes slowly from step to step. It is computed at every n-th
    step only, n = `interval`, and used again in between; the outermost layers are always computed.
    The picture is close to the one without, not the same. The library of that name keeps one cache
    for one picture; here each sample has its own, since samples in a call are at different steps.
    """

    def __init__(self, unet: Any, interval: int) -> None:
        self._interval = interval
        self._unet = unet

    def is_due(self, sample: UNetSample) -> bool:
        """Whether a sample needs its deep part computed at its next step."""
        return sample.deep is None or sample.step % self._interval == 0

    def __call__(self, call: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """A UNet call; `deep` in it is an earlier output of the deep part, or None to compute it.

        Returns the UNet's output, (rows, C, h, w), and the deep part's, to be kept.
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
        if hasattr(unet, "_hf_hook"):  # the network may wait in the CPU's memory
            unet._hf_hook.pre_forward(unet)
        mask = call["encoder_attention_mask"]
        if mask is not None:
            mask = ((1 - mask.to(call["sample"].dtype)) * -10000.0).unsqueeze(1)
        time = unet.get_time_embed(sample=call["sample"], timestep=call["timestep"])
        embedded = unet.time_embedding(time, call["timestep_cond"])
        added = unet.get_aug_embed(
            emb=embedded,
            encoder_hidden_states=words,
            added_cond_kwargs=call["added_cond_kwargs"] or {},
        )
        embedded = embedded if added is None else embedded + added
        first, last = unet.down_blocks[0], unet.up_blocks[-1]

        def text(block: Any) -> dict[str, Any]:
            if not getattr(block, "has_cross_attention", False):
                return {}
            return {"encoder_hidden_states": words, "encoder_attention_mask": mask}

        begun = unet.conv_in(call["sample"])
        _, passed = first(hidden_states=begun, temb=embedded, **text(first))
        passed = (begun, *passed)[: len(last.resnets)]  # without what goes to the deep part
        ended = last(
            hidden_states=deep, temb=embedded, res_hidden_states_tuple=passed, **text(last)
        )
        normal = unet.conv_act(unet.conv_norm_out(ended)) if unet.conv_norm_out else ended
        predicted: torch.Tensor = unet.conv_out(normal)
        return predicted


class Denoiser:
    """Calls a model's noise predictor, a `UNet2DConditionModel`, for many samples at once.

    Its deep part is computed at every `deep_cache_interval`th step of a sample.

    Args:
        conversion: whose UNet computes what it can, once it is there.
    """

    def __init__(
        self,
        unet: Any,
        adapters: Adapters,
        deep_cache_interval: int = 1,
        conversion: Conversion | None = None,
    ) -> None:
        self._unet = unet
        self._adapters = adapters
        self._conversion = conversion
        self._cache = DeepCache(unet, deep_cache_interval) if deep_cache_interval > 1 else None

    def step(
        self, samples: Sequence[UNetSample], max_rows: int
    ) -> list[tuple[UNetSample, Exception]]:
        """Advance samples of one key by one timestep, in calls of at most `max_rows` rows.

        Steps, schedulers, guidance, LoRAs and lengths of prompts may differ.

        Returns:
            The samples whose scheduler failed, with the error; the others have advanced.

        Raises:
            Exception: the call failed; no sample has advanced.
        """
        inputs = {sample: sample.model_input for sample in samples}
        if self._cache is not None:
            predicted = self._predict_cached(self._cache, inputs, max_rows)
        else:
            call = collate(samples, list(inputs.values()))
            with explained(self._unet, samples):
                rows = self._converted(samples, call, max_rows)
                if rows is None:
                    rows = self.predict(call, max_rows, _loras(samples))
            counts = [len(sample.rows) for sample in samples]
            predicted = dict(zip(samples, rows.split(counts), strict=True))
        failed: list[tuple[UNetSample, Exception]] = []
        for sample, model_input in inputs.items():
            try:
                sample.advance(model_input, predicted[sample])
            except (ValueError, IndexError, RuntimeError, NotImplementedError) as error:
                failed.append((sample, error))
        return failed

    def predict(
        self, call: dict[str, Any], max_rows: int, loras: Sequence[LoraSet] = ()
    ) -> torch.Tensor:
        """The UNet's output for a collated call, (rows, C, h, w), with the LoRAs of each row."""
        whole = Call(len(call["sample"]), call, {"return_dict": False}, loras)
        predicted: torch.Tensor = calls.make(self._unet, whole, max_rows, self._adapters.applied)[0]
        return predicted

    def _converted(
        self, samples: Sequence[UNetSample], call: dict[str, Any], max_rows: int
    ) -> torch.Tensor | None:
        """The output as OpenVINO computes it; None if that is for torch.

        LoRAs change layers, explaining looks into them, and exact pictures must not depend on
        whether the network was converted yet.
        """
        network = self._conversion.unet if self._conversion is not None else None
        if network is None or self._conversion is None or not network.takes(call):
            return None
        if _loras(samples) or any(sample.exact or sample.recorder for sample in samples):
            return None
        whole = Call(len(call["sample"]), call, {})
        try:
            predicted: torch.Tensor = calls.make(network, whole, max_rows, self._adapters.applied)[
                0
            ]
        except (RuntimeError, MemoryError) as error:
            self._conversion.drop("unet", error)
            return None
        return predicted

    def _predict_cached(
        self, cache: DeepCache, inputs: dict[UNetSample, torch.Tensor], max_rows: int
    ) -> dict[UNetSample, torch.Tensor]:
        """One call for samples whose deep part is due, one for those with a cached deep part."""
        predicted: dict[UNetSample, torch.Tensor] = {}
        due = [sample for sample in inputs if cache.is_due(sample)]
        for sample in due:
            sample.deep = None
        rest = [sample for sample in inputs if sample.deep is not None]
        for group in filter(None, (due, rest)):
            call = collate(group, [inputs[sample] for sample in group])
            kept = [sample.deep for sample in group if sample.deep is not None]
            call["deep"] = torch.cat(kept) if kept else None
            whole = Call(len(call["sample"]), call, {}, _loras(group))
            made = []
            with explained(self._unet, group):
                for part in whole.parts(max_rows):
                    with self._adapters.applied(part.loras):
                        made.append(cache(part.batched))
            outputs, deeps = zip(*made, strict=True)
            counts = [len(sample.rows) for sample in group]
            predicted |= zip(group, torch.cat(outputs).split(counts), strict=True)
            for sample, deep in zip(group, torch.cat(deeps).split(counts), strict=True):
                sample.deep = deep
        return predicted


def collate(samples: Sequence[UNetSample], inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The arguments of one `UNet2DConditionModel` call for samples of one key, with their inputs.

    Each input is (1, C, h, w).
    """
    rows = [row for sample in samples for row in sample.rows]
    latents, timesteps = [], []
    guidance: list[torch.Tensor] = []
    for sample, model_input in zip(samples, inputs, strict=True):
        inpainting = sample.inpainting
        if inpainting is not None and inpainting.masked_image_latents is not None:
            parts = [model_input, inpainting.mask, inpainting.masked_image_latents]
            model_input = torch.cat(parts, dim=1)  # (1, 9, h, w)
        count = len(sample.rows)
        latents += [model_input] * count
        # Some schedulers count in whole timesteps, others in fractions; the UNet takes both.
        timesteps += [sample.timestep.float()] * count
        if sample.guidance_embedding is not None:
            guidance += [sample.guidance_embedding] * count
    embeds, mask = _pad([row.conditioning.embeds for row in rows])
    pooled = [row.conditioning.pooled for row in rows if row.conditioning.pooled is not None]
    time_ids = [row.time_ids for row in rows if row.time_ids is not None]
    added = None
    if time_ids:  # SDXL's: (rows, dim) and (rows, 5 or 6)
        added = {"text_embeds": torch.cat(pooled), "time_ids": torch.cat(time_ids)}
    return {
        "sample": torch.cat(latents),  # (rows, C, h, w)
        "timestep": torch.stack(timesteps),  # (rows,)
        "encoder_hidden_states": embeds,  # (rows, tokens, dim)
        "encoder_attention_mask": mask,  # (rows, tokens) or None
        "timestep_cond": torch.cat(guidance) if guidance else None,  # (rows, dim)
        "added_cond_kwargs": added,
    }


def _pad(embeds: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack prompts; shorter ones are padded, and the padding is masked."""
    longest = max(embed.shape[1] for embed in embeds)
    if all(embed.shape[1] == longest for embed in embeds):
        return torch.cat(list(embeds)), None
    stacked = embeds[0].new_zeros(len(embeds), longest, embeds[0].shape[2])
    mask = torch.zeros(len(embeds), longest, dtype=torch.bool, device=stacked.device)
    for row, embed in enumerate(embeds):
        stacked[row, : embed.shape[1]] = embed[0]
        mask[row, : embed.shape[1]] = True
    return stacked, mask


def _loras(samples: Sequence[UNetSample]) -> Sequence[LoraSet]:
    """Of each row; empty if no row has any."""
    each = [sample.loras for sample in samples for _ in sample.rows]
    return each if any(loras.scales for loras in each) else ()
