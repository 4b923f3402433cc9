"""Stable Diffusion 1.x and 2.x: one text encoder, latents an eighth of the pixels.

Preparation calls the diffusers pipelines' own methods in their order of random draws, so the
picture equals the stock pipeline's for the same seed. Only the loop around the UNet is ours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image, ImageOps

from darkroom.engine import schedulers
from darkroom.engine.sample import Inpainting, Prediction, Sample
from darkroom.schemas import ResolvedRequest, Task


class StableDiffusion:
    """A loaded model.

    Args:
        folder: in the diffusers format, safetensors only.
        device: where it lives.
        dtype: of weights and activations.

    Raises:
        OSError: the folder misses a part.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).to(device)
        encoder = pipeline.text_encoder
        if not hasattr(encoder, "text_model"):
            # transformers 5 took this wrapper out; diffusers 0.42 still reaches through it for
            # clip_skip. Set around nn.Module, which would register the module as its own child.
            object.__setattr__(encoder, "text_model", encoder)
        parts = {**pipeline.components, "requires_safety_checker": False}
        self._pipelines: dict[Task, Any] = {
            Task.TXT2IMG: pipeline,
            Task.IMG2IMG: StableDiffusionImg2ImgPipeline(**parts),
            Task.INPAINT: StableDiffusionInpaintPipeline(**parts),
        }
        self.unet = pipeline.unet.to(memory_format=torch.channels_last)
        self.vae = pipeline.vae
        self._scheduler_config = dict(pipeline.scheduler.config)

    # --- prepare ---------------------------------------------------------------------------

    def prepare(
        self,
        request: ResolvedRequest,
        index: int,
        image: Image.Image | None,
        mask: Image.Image | None,
    ) -> Sample:
        """Set up image `index` of a request: everything up to the first UNet call.

        Args:
            request: what to make.
            index: which of its images.
            image: RGB, any size; img2img and inpaint.
            mask: L, the size of `image`; inpaint.
        """
        pipeline = self._pipelines[request.task]
        scheduler = schedulers.build(request.scheduler, self._scheduler_config)
        pipeline.scheduler = scheduler  # its methods read it; the engine has one thread
        seed = request.seed_of(index)
        guided = request.guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None
        prompt_embeds, negative_prompt_embeds = pipeline.encode_prompt(
            request.prompt,
            self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            negative_prompt=request.negative_prompt,
            clip_skip=request.clip_skip or None,
        )
        generator = torch.Generator("cpu").manual_seed(seed)
        scheduler.set_timesteps(request.num_inference_steps, device=self.device)
        latents, timesteps, inpainting = self._start(pipeline, request, generator, image, mask)
        return Sample(
            index=index,
            seed=seed,
            latents=latents,
            scheduler=scheduler,
            timesteps=timesteps,
            generator=generator,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds if guided else None,
            guidance_scale=request.guidance_scale,
            step_options=pipeline.prepare_extra_step_kwargs(generator, 0.0),
            inpainting=inpainting,
        )

    def _start(
        self,
        pipeline: Any,
        request: ResolvedRequest,
        generator: torch.Generator,
        image: Image.Image | None,
        mask: Image.Image | None,
    ) -> tuple[torch.Tensor, torch.Tensor, Inpainting | None]:
        """First latents, timesteps to do, and what inpainting needs."""
        where = (self.dtype, self.device, generator)
        size = (request.height, request.width)
        if request.task is Task.TXT2IMG:
            if hasattr(pipeline.scheduler, "set_begin_index"):
                # Left to itself a scheduler looks its first timestep up, and starts one too late
                # where beta spacing repeats it (diffusers `index_for_timestep`).
                pipeline.scheduler.set_begin_index(0)
            channels = self.unet.config.in_channels
            latents = pipeline.prepare_latents(1, channels, *size, *where)
            return latents, pipeline.scheduler.timesteps, None

        assert image is not None
        assert request.strength is not None
        timesteps, _ = pipeline.get_timesteps(
            request.num_inference_steps, request.strength, self.device
        )
        first = timesteps[:1]  # (1,)
        if request.task is Task.IMG2IMG:
            source = image.resize(size[::-1], Image.Resampling.LANCZOS)
            pixels = pipeline.image_processor.preprocess(source)  # (1, 3, H, W) in [-1, 1]
            latents = pipeline.prepare_latents(pixels, first, 1, 1, *where)
            return latents, timesteps, None

        assert mask is not None
        return self._start_inpaint(pipeline, request, generator, image, mask, timesteps)

    def _start_inpaint(
        self,
        pipeline: Any,
        request: ResolvedRequest,
        generator: torch.Generator,
        image: Image.Image,
        mask: Image.Image,
        timesteps: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, Inpainting]:
        where = (self.dtype, self.device, generator)
        height, width = request.height, request.width
        crop, resize_mode = None, "default"
        if request.padding_mask_crop is None:
            image = image.resize((width, height), Image.Resampling.LANCZOS)
            mask = mask.resize((width, height), Image.Resampling.BILINEAR)
        if request.invert_mask:
            mask = ImageOps.invert(mask)
        if request.mask_blur:
            mask = pipeline.mask_processor.blur(mask, blur_factor=request.mask_blur)
        if request.padding_mask_crop is not None:
            crop = pipeline.mask_processor.get_crop_region(
                mask, width, height, pad=request.padding_mask_crop
            )
            resize_mode = "fill"

        options = {"crops_coords": crop, "resize_mode": resize_mode}
        pixels = pipeline.image_processor.preprocess(image, height=height, width=width, **options)
        pixels = pixels.to(torch.float32)  # (1, 3, H, W) in [-1, 1]
        mask_pixels = pipeline.mask_processor.preprocess(
            mask, height=height, width=width, **options
        )  # (1, 1, H, W), 0 or 1
        channels = self.vae.config.latent_channels
        four_channels = self.unet.config.in_channels == 4
        prepared = pipeline.prepare_latents(
            1,
            channels,
            height,
            width,
            *where,
            None,
            image=pixels,
            timestep=timesteps[:1],
            is_strength_max=request.strength == 1.0,
            return_noise=True,
            return_image_latents=four_channels,
        )
        latents, noise = prepared[:2]
        latent_mask, masked_image_latents = pipeline.prepare_mask_latents(
            mask_pixels, pixels * (mask_pixels < 0.5), 1, height, width, *where, False
        )
        keeps_source = request.keep_unmasked or crop is not None
        return (
            latents,
            timesteps,
            Inpainting(
                mask=latent_mask,
                noise=noise,
                image_latents=prepared[2] if four_channels else None,
                masked_image_latents=masked_image_latents,
                source=image if keeps_source else None,
                mask_picture=mask,
                crop=crop,
            ),
        )

    # --- predict and step ------------------------------------------------------------------

    def step(self, samples: Sequence[Sample]) -> None:
        """Advance each sample by one timestep, with one UNet call for all.

        Args:
            samples: of one latent shape, none denoised; steps, schedulers and guidance may differ.
        """
        inputs, timesteps, embeds = [], [], []
        for sample in samples:
            scaled = sample.scheduler.scale_model_input(sample.latents, sample.timestep)
            row = scaled
            if sample.inpainting is not None and sample.inpainting.image_latents is None:
                extra = [sample.inpainting.mask, sample.inpainting.masked_image_latents]
                row = torch.cat([scaled, *extra], dim=1)  # (1, 9, h, w)
            inputs.append(row)
            timesteps.append(sample.timestep)
            embeds.append(sample.prompt_embeds)
            if sample.negative_prompt_embeds is not None:
                inputs.append(row)
                timesteps.append(sample.timestep)
                embeds.insert(-1, sample.negative_prompt_embeds)
        predicted = self.unet(
            torch.cat(inputs),  # (rows, C, h, w)
            torch.stack(timesteps),  # (rows,)
            encoder_hidden_states=torch.cat(embeds),  # (rows, tokens, dim)
            return_dict=False,
        )[0]
        for sample, rows in zip(samples, predicted.split([s.rows for s in samples]), strict=True):
            self._advance(sample, rows)

    def _advance(self, sample: Sample, rows: torch.Tensor) -> None:
        """Guide, then let the sample's own scheduler take the step. `rows` is (1 or 2, C, h, w)."""
        if sample.rows == 2:
            unconditional, conditional = rows.chunk(2)
            output = unconditional + sample.guidance_scale * (conditional - unconditional)
        else:
            output = rows
        timestep = sample.timestep
        sample.prediction = Prediction(
            sample.scheduler.scale_model_input(sample.latents, timestep), output, timestep
        )
        sample.latents = sample.scheduler.step(
            output, timestep, sample.latents, **sample.step_options, return_dict=False
        )[0]
        sample.step += 1
        inpainting = sample.inpainting
        if inpainting is not None and inpainting.image_latents is not None:
            kept = inpainting.image_latents
            if not sample.denoised:
                kept = sample.scheduler.add_noise(
                    kept, inpainting.noise, sample.timestep.reshape(1)
                )
            sample.latents = (1 - inpainting.mask) * kept + inpainting.mask * sample.latents

    # --- decode ----------------------------------------------------------------------------

    def decode(self, sample: Sample) -> Image.Image:
        """The finished picture, RGB."""
        latents = sample.latents / self.vae.config.scaling_factor
        pixels = self.vae.decode(latents, return_dict=False, generator=sample.generator)[0]
        processor = self._pipelines[Task.INPAINT].image_processor
        picture: Image.Image = processor.postprocess(pixels, output_type="pil")[0]
        inpainting = sample.inpainting
        if inpainting is not None and inpainting.source is not None:
            picture = processor.apply_overlay(
                inpainting.mask_picture, inpainting.source, picture, inpainting.crop
            )
        return picture.convert("RGB")

    def predicted_latents(self, sample: Sample) -> torch.Tensor | None:
        """What the latents would be if the last prediction were right. (1, C, h, w), unscaled.

        The UNet's input is x = sqrt(ā)·x₀ + sqrt(1−ā)·ε whatever the scheduler, because
        `scale_model_input` brings it there; so this needs nothing of the scheduler but ā.
        """
        last = sample.prediction
        if last is None:
            return None
        alphas = sample.scheduler.alphas_cumprod
        position = int(last.timestep.round().clamp(0, len(alphas) - 1))
        signal = alphas[position].to(last.output).clamp(min=1e-6)
        noise = (1 - signal).sqrt() * last.output
        latents: torch.Tensor
        match sample.scheduler.config.prediction_type:
            case "v_prediction":
                latents = signal.sqrt() * last.model_input - noise
            case "sample":
                latents = last.output
            case _:
                latents = (last.model_input - noise) / signal.sqrt()
        return latents
