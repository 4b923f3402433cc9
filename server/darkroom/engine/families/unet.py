"""Prepares and decodes the samples of all families with a UNet.

Preparation calls the diffusers pipelines' own methods in their order of random draws, so the
image equals the stock pipeline's for the same seed. Only the loop around the UNet is ours, and
the VAE encodes and decodes several images at once.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from darkroom.engine import schedulers
from darkroom.engine.base import EngineJob
from darkroom.engine.denoiser import Denoiser
from darkroom.engine.families import sources, starts
from darkroom.engine.families.sources import Source
from darkroom.engine.prompts import PromptEncoder
from darkroom.engine.sample import Inpainting, Row, Sample
from darkroom.engine.vae import Vae
from darkroom.requests import Img2Img, Inpaint, Task, Txt2Img


class UNetFamily:
    """A loaded model.

    Args:
        pipelines: one diffusers pipeline per task, sharing parts; tasks that the model cannot do
            are missing.
        device: of the computation, also while weights are offloaded.
        dtype: of latents.
    """

    def __init__(
        self,
        pipelines: dict[Task, Any],
        prompts: PromptEncoder,
        vae: Vae,
        denoiser: Denoiser,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        pipeline = next(iter(pipelines.values()))
        self.unet = pipeline.unet
        self.vae = vae
        self.denoiser = denoiser
        self.dtype = dtype
        self.device = device
        self.offloaded = False
        self._pipelines = pipelines
        self._prompts = prompts
        self._scheduler_config = dict(pipeline.scheduler.config)
        self._repaints_latents = (
            self.unet.config.in_channels == self.vae.model.config.latent_channels
        )

    def _time_ids(self, _request: Txt2Img, _negative: bool) -> torch.Tensor | None:
        """Size conditioning of the UNet, for families that have it."""
        return None

    def latent_shape(self, request: Txt2Img) -> tuple[int, ...]:
        """(C, h, w) of the request's latents."""
        channels = self.vae.model.config.latent_channels
        return channels, request.height // self.vae.factor, request.width // self.vae.factor

    def offload(self, how: str) -> None:
        """Keep weights in the CPU's memory while another part runs. For GPUs only.

        Args:
            how: `model` moves one network at a time, `sequential` one layer: slower, less memory.
        """
        pipeline = next(iter(self._pipelines.values()))  # the others share its parts
        if how == "sequential":
            pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            pipeline.enable_model_cpu_offload(device=self.device)
        self.offloaded = True

    # --- prepare ---------------------------------------------------------------------------

    def prepare(self, jobs: Sequence[EngineJob]) -> dict[str, list[Sample]]:
        """The samples of jobs, ready for the first UNet call. Sources of one size share a call.

        Args:
            jobs: with the same LoRA set, which is active.

        Returns:
            By job id, one sample per image.

        Raises:
            PromptError, ValueError: a job's request does not fit this model.
            torch.OutOfMemoryError: the sources do not fit in the VAE together.
            Exception: another failure. With several jobs any of them may be the cause; preparing
                each by itself tells which.
        """
        read = {job.id: sources.read(job, self._pipeline(job.model_request)) for job in jobs}
        moments = self._encode(jobs, read)
        return {
            job.id: [
                self._sample(job.model_request, index, read[job.id], moments.get(job.id, ()))
                for index in range(job.model_request.num_images)
            ]
            for job in jobs
        }

    def _pipeline(self, request: Txt2Img) -> Any:
        pipeline = self._pipelines.get(request.task)
        if pipeline is None:
            can = " and ".join(self._pipelines)
            raise ValueError(f"{request.model} does {can}, not {request.task}")
        return pipeline

    def _encode(
        self, jobs: Sequence[EngineJob], read: dict[str, Source | None]
    ) -> dict[str, list[torch.Tensor | None]]:
        """VAE moments (1, 2C, h, w) of each source and masked source that is needed, by job id."""
        found: dict[str, list[torch.Tensor | None]] = {}
        wanted: dict[torch.Size, list[tuple[str, int, torch.Tensor]]] = defaultdict(list)
        for job in jobs:
            source = read[job.id]
            request = job.request
            if source is None or not isinstance(request, Img2Img | Inpaint):
                continue
            found[job.id] = [None, None]
            repaints = isinstance(request, Inpaint)
            if not repaints or self._repaints_latents or request.strength != 1.0:
                wanted[source.pixels.shape].append((job.id, 0, source.pixels))
            if repaints and not self._repaints_latents:
                wanted[source.pixels.shape].append((job.id, 1, source.masked_pixels))
        for alike in wanted.values():
            moments = self.vae.moments(torch.cat([pixels for _, _, pixels in alike]))
            for (job_id, place, _), one in zip(alike, moments.split(1), strict=True):
                found[job_id][place] = one
        return found

    def _sample(
        self,
        request: Txt2Img,
        index: int,
        source: Source | None,
        moments: Sequence[torch.Tensor | None],
    ) -> Sample:
        pipeline = self._pipeline(request)
        scheduler = schedulers.build(request.scheduler, self._scheduler_config)
        pipeline.scheduler = scheduler  # its methods read it; the engine has one thread
        distilled = self.unet.config.time_cond_proj_dim is not None
        guided = request.guidance_scale > 1 and not distilled
        seed = request.seed_of(index)
        generator = torch.Generator("cpu").manual_seed(seed)
        scheduler.set_timesteps(request.num_inference_steps, device=self.device)
        timesteps = self._timesteps(pipeline, request)
        inpainting = None
        if isinstance(request, Img2Img):
            latents = self._noised_source(pipeline, request, timesteps, generator, moments)
        elif isinstance(request, Inpaint) and source is not None:
            latents, inpainting = self._repainting(
                pipeline, request, timesteps, generator, source, moments
            )
        else:
            latents = self._noise(request, scheduler, generator)
        return Sample(
            index=index,
            seed=seed,
            latents=latents,
            scheduler=scheduler,
            timesteps=timesteps,
            generator=generator,
            rows=self._rows(request, guided),
            guidance_scale=request.guidance_scale,
            guidance_rescale=request.guidance_rescale,
            step_options=pipeline.prepare_extra_step_kwargs(generator, 0.0),
            guidance_embedding=self._embedded_guidance(pipeline, request) if distilled else None,
            inpainting=inpainting,
        )

    def _rows(self, request: Txt2Img, guided: bool) -> tuple[Row, ...]:
        """The conditioning rows: with guidance the negative prompt's, then the prompt's."""
        skip, loras = request.clip_skip, request.loras
        asked = self._prompts.encode(request.prompt, clip_skip=skip, variant=loras)
        rows = (Row(asked, self._time_ids(request, False)),)
        if not guided:
            return rows
        shunned = self._prompts.encode(
            request.negative_prompt, clip_skip=skip, negative=True, variant=loras
        )
        return (Row(shunned, self._time_ids(request, True)), *rows)

    def _timesteps(self, pipeline: Any, request: Txt2Img) -> torch.Tensor:
        """(n,): all timesteps, or those that remain at the request's strength."""
        if isinstance(request, Img2Img | Inpaint):
            timesteps: torch.Tensor
            steps, strength = request.num_inference_steps, request.strength
            timesteps, _ = pipeline.get_timesteps(steps, strength, self.device)
            if not len(timesteps):
                raise ValueError(f"strength {strength} of {steps} steps leaves none to do")
            return timesteps
        if hasattr(pipeline.scheduler, "set_begin_index"):
            # Left to itself a scheduler looks its first timestep up, and starts one too late
            # where beta spacing repeats it (diffusers `index_for_timestep`).
            pipeline.scheduler.set_begin_index(0)
        whole: torch.Tensor = pipeline.scheduler.timesteps
        return whole

    def _noise(self, request: Txt2Img, scheduler: Any, generator: torch.Generator) -> torch.Tensor:
        shape = (1, *self.latent_shape(request))
        noise = randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)
        latents: torch.Tensor = noise * scheduler.init_noise_sigma
        return latents

    def _noised_source(
        self,
        pipeline: Any,
        request: Img2Img,
        timesteps: torch.Tensor,
        generator: torch.Generator,
        moments: Sequence[torch.Tensor | None],
    ) -> torch.Tensor:
        assert moments[0] is not None
        drawn = self.vae.draw(moments[0], generator)
        if request.latent_resize is not None:
            _, height, width = self.latent_shape(request)
            drawn = starts.resized(drawn, (height, width), request.latent_resize)
        where = (self.dtype, self.device, generator)
        latents: torch.Tensor = pipeline.prepare_latents(drawn, timesteps[:1], 1, 1, *where)
        return latents

    def _repainting(
        self,
        pipeline: Any,
        request: Inpaint,
        timesteps: torch.Tensor,
        generator: torch.Generator,
        source: Source,
        moments: Sequence[torch.Tensor | None],
    ) -> tuple[torch.Tensor, Inpainting]:
        """The first latents, and the inputs of inpainting."""
        where = (self.dtype, self.device, generator)
        size = (request.height, request.width)
        image, masked = moments
        drawn = source.pixels
        if image is not None:
            drawn = self.vae.draw(image, generator)
            assert source.mask_pixels is not None
            drawn = starts.refilled(
                drawn, source.mask_pixels, request.masked_content, generator.initial_seed()
            )
        channels = self.vae.model.config.latent_channels
        prepared = pipeline.prepare_latents(
            1,
            channels,
            *size,
            *where,
            None,
            image=drawn,
            timestep=timesteps[:1],
            is_strength_max=request.strength == 1.0,
            return_noise=True,
            return_image_latents=self._repaints_latents,
        )
        latents, noise = prepared[:2]
        if masked is None:
            # diffusers encodes the masked source although a 4-channel UNet never sees it. The
            # draw it takes for that is all that matters to what follows.
            dtype = self.vae.model.dtype
            randn_tensor(latents.shape, generator=generator, device=self.device, dtype=dtype)
            masked_latents = latents  # four channels: taken as they are, and not used
        else:
            masked_latents = self.vae.draw(masked, generator)
        mask, masked_latents = pipeline.prepare_mask_latents(
            source.mask_pixels, masked_latents, 1, *size, *where, False
        )
        assert source.mask_picture is not None
        return latents, Inpainting(
            mask=mask,
            noise=noise,
            image_latents=prepared[2] if self._repaints_latents else None,
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

    # --- decode ----------------------------------------------------------------------------

    def decode(self, samples: Sequence[Sample]) -> list[Image.Image]:
        """The finished images, RGB.

        Args:
            samples: denoised, with latents of one shape.

        Raises:
            torch.OutOfMemoryError: they do not fit in the VAE together.
        """
        pixels = self.vae.decode(torch.cat([sample.latents for sample in samples]))
        processor = next(iter(self._pipelines.values())).image_processor
        pictures = processor.postprocess(pixels, output_type="pil")
        return [
            self._put_back(processor, sample, picture).convert("RGB")
            for sample, picture in zip(samples, pictures, strict=True)
        ]

    def _put_back(self, processor: Any, sample: Sample, picture: Image.Image) -> Image.Image:
        """The image with the source's pixels restored where the mask is black."""
        inpainting = sample.inpainting
        if inpainting is None or inpainting.source is None:
            return picture
        whole: Image.Image = processor.apply_overlay(
            inpainting.mask_picture, inpainting.source, picture, inpainting.crop
        )
        return whole
