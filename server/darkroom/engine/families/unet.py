"""Prepares and decodes the samples of all families with a UNet.

Preparation calls the diffusers pipelines' own methods in their order of random draws, so the
image equals the stock pipeline's for the same seed. Only the loop around the UNet is ours, and
the VAE encodes and decodes several images at once.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from darkroom.engine import calls, packing
from darkroom.engine.adapters import NONE, Adapters, LoraSet
from darkroom.engine.base import EngineJob
from darkroom.engine.denoiser import Denoiser, collate
from darkroom.engine.errors import NotFiniteError
from darkroom.engine.explain.recorder import Recorder
from darkroom.engine.families import sources
from darkroom.engine.families.base import WarmedUp
from darkroom.engine.families.sources import Source
from darkroom.engine.memory import Offload
from darkroom.engine.offload import Offloading
from darkroom.engine.openvino.conversion import Conversion
from darkroom.engine.previews import Preview
from darkroom.engine.prompts import PromptEncoder
from darkroom.engine.sample import Inpainting, Row, UNetSample, build_scheduler
from darkroom.engine.vae import Vae
from darkroom.requests import Img2Img, Inpaint, Task, Txt2Img


class UNetFamily:
    """A loaded model.

    Args:
        pipelines: one diffusers pipeline for each task that the model can do, sharing parts.
        device: of the computation, also while weights are offloaded.
        dtype: of latents.
        notes_on: what jobs with a prompt are told about it.
        conversion: to OpenVINO; it begins after the first picture.
    """

    def __init__(
        self,
        pipelines: dict[Task, Any],
        prompts: PromptEncoder,
        adapters: Adapters,
        vae: Vae,
        denoiser: Denoiser,
        preview: Preview,
        device: torch.device,
        dtype: torch.dtype,
        notes_on: Callable[[str], list[str]],
        conversion: Conversion | None = None,
    ) -> None:
        pipeline = next(iter(pipelines.values()))
        self.unet = pipeline.unet
        self.vae = vae
        self.denoiser = denoiser
        self._preview = preview
        self._notes_on = notes_on
        self._conversion = conversion
        self.dtype = dtype
        self.device = device
        self._offloading = Offloading(pipeline, device)
        self._pipelines = pipelines
        self._prompts = prompts
        self._adapters = adapters
        self._scheduler_config = dict(pipeline.scheduler.config)
        self._channels: int = vae.model.config.latent_channels
        # Otherwise the UNet reads the mask and the masked source, in nine channels.
        self._repaints_latents = self.unet.config.in_channels == self._channels

    def _time_ids(self, _request: Txt2Img, _negative: bool) -> torch.Tensor | None:
        """Size conditioning of the UNet, for families that have it."""
        return None

    def warm_up(self, job: EngineJob) -> WarmedUp:
        """As for all families; also packs the weights for this machine's CPU."""
        (sample,) = self.prepare([job])[job.id]
        _, _, height, width = sample.latents.shape
        factor = self.vae.factor
        pixels = sample.latents.new_zeros(1, 3, height * factor, width * factor)

        def denoise(rows: int) -> torch.Tensor:
            doubled = collate([sample] * rows, [sample.model_input] * rows)  # guidance takes two
            return self.denoiser.predict(calls.rows_of(doubled, 0, rows), rows)

        self.unet.to(memory_format=torch.channels_last)
        packing.pack(self.unet, lambda: denoise(2))
        packing.pack(self.vae.model.decoder, lambda: self.vae.decode(sample.latents))
        packing.pack(self.vae.model.encoder, lambda: self.vae.moments(pixels))
        self.vae.decode(sample.latents)
        if not denoise(1).isfinite().all():
            raise NotFiniteError("UNet")
        if self._conversion is not None:
            example = collate([sample] * 2, [sample.model_input] * 2)
            self._conversion.expect(example, sample.latents, torch.randn_like(pixels))
        return WarmedUp(denoise, sample.area)

    def notes(self, job: EngineJob) -> list[str]:
        return self._notes_on(job.model_request.prompt)

    def admits(self, job: EngineJob) -> bool:
        return self._adapters.admits(job.model_request.loras)

    def offload(self, how: Offload) -> None:
        self._offloading.begin(how)

    def tile(self, side: int) -> None:
        self.vae.tile(side)

    def close(self, sample: UNetSample) -> None:
        sample.loras = NONE

    # --- prepare ---------------------------------------------------------------------------

    def prepare(self, jobs: Sequence[EngineJob]) -> dict[str, list[UNetSample]]:
        """By job id one sample per image, ready for the first UNet call.

        The jobs have the same LoRAs. Sources of one size share a VAE call.

        Raises:
            AdapterError: their LoRAs cannot be used.
            ValueError: a job's request does not fit this model.
            torch.OutOfMemoryError: the sources do not fit in the VAE together.
            Exception: another failure. With several jobs any of them may be the cause; preparing
                each by itself tells which.
        """
        loras = self._adapters.find(jobs[0].model_request.loras)
        self._offloading.rest()
        read = [(job, sources.read(job, self._pipeline(job.model_request))) for job in jobs]
        with self.vae.exactly(any(job.model_request.exact for job, _ in read)):
            self._encode([(job.model_request, src) for job, src in read if src is not None])
        try:
            with self._adapters.applied([loras]):  # to the text encoders
                return {
                    job.id: self._samples(job.model_request, source, loras) for job, source in read
                }
        finally:
            self._offloading.rest()

    def _pipeline(self, request: Txt2Img) -> Any:
        pipeline = self._pipelines.get(request.task)
        if pipeline is None:
            can = " and ".join(self._pipelines)
            raise ValueError(f"{request.model} does {can}, not {request.task}")
        return pipeline

    def _encode(self, asked: Sequence[tuple[Txt2Img, Source]]) -> None:
        """Set the VAE moments that are needed of each source."""
        wanted: dict[torch.Size, list[tuple[Source, str, torch.Tensor]]] = defaultdict(list)
        for request, source in asked:
            pixels, mask = source.pixels, source.mask_pixels
            alike = wanted[pixels.shape]
            anew = isinstance(request, Inpaint) and request.strength == 1.0
            if mask is None or self._repaints_latents or not anew:
                alike.append((source, "moments", pixels))
            if mask is not None and not self._repaints_latents:
                alike.append((source, "masked_moments", pixels * (mask < 0.5)))
        for alike in wanted.values():
            moments = self.vae.moments(torch.cat([pixels for _, _, pixels in alike]))
            for (source, name, _), one in zip(alike, moments.split(1), strict=True):
                setattr(source, name, one)

    def _samples(self, request: Txt2Img, source: Source | None, loras: LoraSet) -> list[UNetSample]:
        """Those of a job."""
        count = request.num_images
        samples = [self._sample(request, index, source, loras) for index in range(count)]
        if request.explain:
            prompt = functools.cache(  # once for all images
                lambda: self._prompts.explain(
                    request.prompt, clip_skip=request.clip_skip, words=loras.words
                )
            )
            crop = None if source is None else source.crop
            for sample in samples:
                sample.recorder = Recorder(
                    sample.index, sample.seed, count, prompt, self._preview.render, crop
                )
        return samples

    def _sample(
        self, request: Txt2Img, index: int, source: Source | None, loras: LoraSet
    ) -> UNetSample:
        pipeline = self._pipeline(request)
        scheduler = build_scheduler(request.scheduler, self._scheduler_config)
        pipeline.scheduler = scheduler  # its methods read it; the engine has one thread
        scheduler.set_timesteps(request.num_inference_steps, device=self.device)
        timesteps = self._timesteps(pipeline, request)
        seed = request.seed_of(index)
        generator = torch.Generator("cpu").manual_seed(seed)
        size = (request.height // self.vae.factor, request.width // self.vae.factor)
        inpainting = None
        if isinstance(request, Inpaint):
            assert source is not None
            latents, inpainting = self._repainting(pipeline, request, timesteps, generator, source)
        elif isinstance(request, Img2Img):
            assert source is not None
            assert source.moments is not None
            drawn = self.vae.draw(source.moments, generator)
            if request.latent_resize is not None:
                drawn = sources.resized(drawn, size, request.latent_resize)
            where = (self.dtype, self.device, generator)
            latents = pipeline.prepare_latents(drawn, timesteps[:1], 1, 1, *where)
        else:
            shape = (1, self._channels, *size)
            noise = randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)
            latents = noise * scheduler.init_noise_sigma
        distilled = self.unet.config.time_cond_proj_dim is not None
        return UNetSample(
            index=index,
            seed=seed,
            area=request.width * request.height,
            latents=latents,
            scheduler=scheduler,
            timesteps=timesteps,
            generator=generator,
            rows=self._rows(request, loras, guided=request.guidance_scale > 1 and not distilled),
            guidance_scale=request.guidance_scale,
            guidance_rescale=request.guidance_rescale,
            step_options=pipeline.prepare_extra_step_kwargs(generator, 0.0),
            guidance_embedding=self._embedded_guidance(pipeline, request) if distilled else None,
            inpainting=inpainting,
            loras=loras,
            exact=request.exact,
        )

    def _rows(self, request: Txt2Img, loras: LoraSet, guided: bool) -> tuple[Row, ...]:
        """The conditioning rows: with guidance the negative prompt's, then the prompt's."""
        its: dict[str, Any] = {"clip_skip": request.clip_skip, "variant": loras.text_key}
        its["words"] = loras.words
        positive = self._prompts.encode(request.prompt, **its)
        rows = (Row(positive, self._time_ids(request, False)),)
        if not guided:
            return rows
        negative = self._prompts.encode(request.negative_prompt, negative=True, **its)
        return (Row(negative, self._time_ids(request, True)), *rows)

    def _timesteps(self, pipeline: Any, request: Txt2Img) -> torch.Tensor:
        """(n,): all timesteps, or those that remain at the request's strength."""
        timesteps: torch.Tensor
        if isinstance(request, Img2Img | Inpaint):
            steps, strength = request.num_inference_steps, request.strength
            timesteps, _ = pipeline.get_timesteps(steps, strength, self.device)
            if not len(timesteps):
                raise ValueError(f"strength {strength} of {steps} steps leaves none to do")
            return timesteps
        if hasattr(pipeline.scheduler, "set_begin_index"):
            # Left to itself a scheduler looks its first timestep up, and starts one too late
            # where beta spacing repeats it (diffusers `index_for_timestep`).
            pipeline.scheduler.set_begin_index(0)
        timesteps = pipeline.scheduler.timesteps
        return timesteps

    def _repainting(
        self,
        pipeline: Any,
        request: Inpaint,
        timesteps: torch.Tensor,
        generator: torch.Generator,
        source: Source,
    ) -> tuple[torch.Tensor, Inpainting]:
        """The first latents, and the inputs of inpainting."""
        assert source.mask_pixels is not None
        assert source.mask_picture is not None
        where = (self.dtype, self.device, generator)
        size = (request.height, request.width)
        drawn = source.pixels
        if source.moments is not None:
            drawn = sources.refilled(
                self.vae.draw(source.moments, generator),
                source.mask_pixels,
                request.masked_content,
                generator.initial_seed(),
            )
        latents, noise, *image_latents = pipeline.prepare_latents(
            1,
            self._channels,
            *size,
            *where,
            None,
            image=drawn,
            timestep=timesteps[:1],
            is_strength_max=request.strength == 1.0,
            return_noise=True,
            return_image_latents=self._repaints_latents,
        )
        if source.masked_moments is None:
            # diffusers encodes the masked source although a 4-channel UNet never sees it. The
            # draw it takes for that is all that matters to what follows.
            dtype = self.vae.model.dtype
            randn_tensor(latents.shape, generator=generator, device=self.device, dtype=dtype)
            masked_latents = latents  # four channels: taken as they are, and not used
        else:
            masked_latents = self.vae.draw(source.masked_moments, generator)
        mask, masked_latents = pipeline.prepare_mask_latents(
            source.mask_pixels, masked_latents, 1, *size, *where, False
        )
        return latents, Inpainting(
            mask=mask,
            noise=noise,
            image_latents=image_latents[0] if self._repaints_latents else None,
            masked_image_latents=None if self._repaints_latents else masked_latents,
            source=source.picture,
            mask_picture=source.mask_picture,
            crop=source.crop,
        )

    def _embedded_guidance(self, pipeline: Any, request: Txt2Img) -> torch.Tensor:
        """(1, dim), for UNets distilled with guidance as an input (arXiv 2210.03142)."""
        scale = torch.tensor([request.guidance_scale - 1])
        dim = self.unet.config.time_cond_proj_dim
        embedded: torch.Tensor = pipeline.get_guidance_scale_embedding(scale, embedding_dim=dim)
        return embedded.to(self.device, self.dtype)

    # --- denoise ---------------------------------------------------------------------------

    def step(
        self, samples: Sequence[UNetSample], max_rows: int
    ) -> list[tuple[UNetSample, Exception]]:
        # Rows with the same LoRAs stand side by side, so that they are one piece of a tensor.
        return self.denoiser.step(sorted(samples, key=lambda s: s.loras.key), max_rows)

    def preview(self, sample: UNetSample) -> bytes | None:
        latents = sample.predicted_latents()
        return None if latents is None else self._preview.render(latents)

    # --- decode ----------------------------------------------------------------------------

    def decode(self, samples: Sequence[UNetSample]) -> list[Image.Image]:
        """The finished images, RGB, of denoised samples with latents of one shape.

        What inpainting keeps has the source's own pixels.

        Raises:
            torch.OutOfMemoryError: they do not fit in the VAE together.
        """
        latents = torch.cat([sample.latents for sample in samples])
        if not latents.isfinite().all():
            raise NotFiniteError("UNet")
        with self.vae.exactly(any(sample.exact for sample in samples)):
            pixels = self.vae.decode(latents)
        if self._conversion is not None:
            self._conversion.begin()
        processor = next(iter(self._pipelines.values())).image_processor
        pictures: list[Image.Image] = processor.postprocess(pixels, output_type="pil")
        for place, sample in enumerate(samples):
            kept = sample.inpainting
            if kept is not None and kept.source is not None:
                pictures[place] = processor.apply_overlay(
                    kept.mask_picture, kept.source, pictures[place], kept.crop
                )
        return [picture.convert("RGB") for picture in pictures]
