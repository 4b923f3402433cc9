"""Source pictures and masks, made ready for the VAE the way diffusers' pipelines do it."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

from darkroom.engine.base import EngineJob
from darkroom.requests import Img2Img, Inpaint, Task


@dataclass(frozen=True)
class Source:
    """What img2img and inpaint begin from, before anything is encoded.

    Attributes:
        pixels: (1, 3, H, W) in [-1, 1].
        mask_pixels: (1, 1, H, W), 0 or 1; 1 is repainted; None for img2img.
        picture: what comes back where the mask is black.
        mask_picture: L, the size of `picture`, blurred and inverted as asked.
        crop: left, top, right, bottom in `picture` of the part being repainted, None for all.
    """

    pixels: torch.Tensor
    mask_pixels: torch.Tensor | None = None
    picture: Image.Image | None = None
    mask_picture: Image.Image | None = None
    crop: tuple[int, int, int, int] | None = None

    @property
    def masked_pixels(self) -> torch.Tensor:
        """`pixels` without what is repainted."""
        assert self.mask_pixels is not None
        return self.pixels * (self.mask_pixels < 0.5)


def read(job: EngineJob, pipeline: Any) -> Source | None:
    """The source of a job, at the size of the request; None for txt2img.

    Where latents are to be resized, at its own size, down to a multiple of the VAE's factor.

    Args:
        job: with its pictures.
        pipeline: of the job's task; its image and mask processors are used.
    """
    request = job.model_request
    if request.task is Task.TXT2IMG:
        return None
    picture, mask = sized(job)
    if not isinstance(request, Inpaint):
        return Source(pipeline.image_processor.preprocess(picture))
    width, height = request.width, request.height
    crop, resize_mode = None, "default"
    if request.padding_mask_crop is not None:
        crop = pipeline.mask_processor.get_crop_region(
            mask, width, height, pad=request.padding_mask_crop
        )
        resize_mode = "fill"
    options = {"crops_coords": crop, "resize_mode": resize_mode}
    pixels = pipeline.image_processor.preprocess(picture, height=height, width=width, **options)
    mask_pixels = pipeline.mask_processor.preprocess(mask, height=height, width=width, **options)
    keeps = request.keep_unmasked or crop is not None
    return Source(pixels.float(), mask_pixels, picture if keeps else None, mask, crop)


def sized(job: EngineJob) -> tuple[Image.Image, Image.Image | None]:
    """A job's picture and mask at the size of the request, the mask blurred and inverted as asked.

    Where only the mask's surroundings are repainted, both keep their own size: the surroundings
    are cut out of them, and put back. Where latents are to be resized, the picture keeps its own.
    """
    request, picture, mask = job.model_request, job.image, job.mask
    assert picture is not None
    size = (request.width, request.height)
    if not isinstance(request, Inpaint):
        if not isinstance(request, Img2Img) or request.latent_resize is None:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        return picture, None
    assert mask is not None
    if request.padding_mask_crop is None:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    if request.invert_mask:
        mask = ImageOps.invert(mask)
    if request.mask_blur:
        mask = VaeImageProcessor.blur(mask, blur_factor=request.mask_blur)
    return picture, mask
