"""One UNet call for many samples."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from darkroom.engine.deep_cache import DeepCache
from darkroom.engine.sample import Row, Sample


class Denoiser:
    """Calls a model's noise predictor for many samples at once.

    Args:
        unet: a diffusers `UNet2DConditionModel`, on its device.
        deep_cache_interval: how often the deep part of the UNet is computed; 1 is at every step.
    """

    def __init__(self, unet: Any, deep_cache_interval: int = 1) -> None:
        self._unet = unet
        self._cache = DeepCache(unet, deep_cache_interval) if deep_cache_interval > 1 else None

    def step(self, samples: Sequence[Sample], max_rows: int) -> list[tuple[Sample, Exception]]:
        """Advance each sample by one timestep.

        Args:
            samples: of one key, none denoised; steps, schedulers, guidance and lengths of prompts
                may differ.
            max_rows: of one call; more rows are cut into several calls.

        Returns:
            The samples whose scheduler failed, with the error; the others have advanced.

        Raises:
            Exception: the call failed; no sample has advanced.
        """
        inputs = [sample.model_input for sample in samples]
        if self._cache is not None:
            predicted = self._predict_cached(self._cache, samples, inputs, max_rows)
        else:
            call = collate(samples, inputs)
            predicted = self.predict(call, max_rows).split([len(s.rows) for s in samples])
        failed: list[tuple[Sample, Exception]] = []
        for sample, model_input, rows in zip(samples, inputs, predicted, strict=True):
            try:
                sample.advance(model_input, rows)
            except (ValueError, IndexError, RuntimeError, NotImplementedError) as error:
                failed.append((sample, error))
        return failed

    def predict(self, call: dict[str, Any], max_rows: int) -> torch.Tensor:
        """The UNet's output for a collated call, (rows, C, h, w)."""
        parts = [self._unet(**part, return_dict=False)[0] for part in _parts(call, max_rows)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _predict_cached(
        self,
        cache: DeepCache,
        samples: Sequence[Sample],
        inputs: Sequence[torch.Tensor],
        max_rows: int,
    ) -> list[torch.Tensor]:
        """One call for samples whose deep part is due, one for those with a cached deep part."""
        predicted: dict[int, torch.Tensor] = {}
        due = [place for place, s in enumerate(samples) if cache.is_due(s.step, s.deep)]
        for place in due:
            samples[place].deep = None
        rest = [place for place in range(len(samples)) if place not in due]
        for places in filter(None, (due, rest)):
            some = [samples[place] for place in places]
            call = collate(some, [inputs[place] for place in places])
            kept = [sample.deep for sample in some if sample.deep is not None]
            call["deep"] = torch.cat(kept) if kept else None
            outputs, deeps = zip(*(cache(part) for part in _parts(call, max_rows)), strict=True)
            counts = [len(sample.rows) for sample in some]
            predicted |= zip(places, torch.cat(outputs).split(counts), strict=True)
            for sample, deep in zip(some, torch.cat(deeps).split(counts), strict=True):
                sample.deep = deep
        return [predicted[place] for place in range(len(samples))]


def collate(samples: Sequence[Sample], inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The arguments of one `UNet2DConditionModel` call.

    Args:
        samples: of one key.
        inputs: (1, C, h, w) each, the samples' UNet inputs.
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
    return {
        "sample": torch.cat(latents),  # (rows, C, h, w)
        "timestep": torch.stack(timesteps),  # (rows,)
        "encoder_hidden_states": embeds,  # (rows, tokens, dim)
        "encoder_attention_mask": mask,  # (rows, tokens) or None
        "timestep_cond": torch.cat(guidance) if guidance else None,  # (rows, dim)
        "added_cond_kwargs": _added(rows),
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


def _added(rows: Sequence[Row]) -> dict[str, torch.Tensor] | None:
    """SDXL's conditioning beside the prompt; None for other families."""
    pooled = [row.conditioning.pooled for row in rows if row.conditioning.pooled is not None]
    time_ids = [row.time_ids for row in rows if row.time_ids is not None]
    if not time_ids:
        return None
    return {
        "text_embeds": torch.cat(pooled),  # (rows, dim)
        "time_ids": torch.cat(time_ids),  # (rows, 5 or 6)
    }


def _parts(call: dict[str, Any], max_rows: int) -> Iterator[dict[str, Any]]:
    """Cut a call into calls of at most `max_rows` rows."""
    rows = len(call["sample"])
    if rows <= max_rows:
        yield call
        return
    for start in range(0, rows, max_rows):
        chosen = slice(start, start + max_rows)
        yield map_tensors(call, operator.itemgetter(chosen))


def map_tensors(
    call: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Any]:
    """The same call with every tensor changed; what is None stays None."""
    changed: dict[str, Any] = {}
    for name, value in call.items():
        if isinstance(value, dict):
            changed[name] = map_tensors(value, change)
        else:
            changed[name] = None if value is None else change(value)
    return changed
