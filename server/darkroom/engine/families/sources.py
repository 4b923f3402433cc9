"""What img2img and inpaint start from: source pictures and masks, and changes of their latents.

Pictures are made ready for the VAE as diffusers' pipelines do it. The changes of latents are
AUTOMATIC1111's: its `latent_upscale_modes` (`modules/shared_items.py`) and its fills of masked
content (`StableDiffusionProcessingImg2Img.init` in `modules/processing.py`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image, ImageOps

from darkroom.engine.base import EngineJob
from darkroom.requests import Img2Img, Inpaint, LatentResize, MaskedContent, Task


@dataclass
class Source:
    """What img2img and inpaint start from; the mask is for inpaint only.

    The VAE's moments are None until encoded, and where they are not needed.
    """

    pixels: torch.Tensor  # (1, 3, H, W) in [-1, 1]
    mask_pixels: torch.Tensor | None = None  # (1, 1, H, W), 0 or 1; 1 is repainted
    picture: Image.Image | None = None  # what comes back where the mask is black
    mask_picture: Image.Image | None = None  # L, the size of `picture`, blurred and inverted
    crop: tuple[int, int, int, int] | None = None  # what of `picture` is repainted; None for all
    moments: torch.Tensor | None = None  # (1, 2C, h, w) of `pixels`
    masked_moments: torch.Tensor | None = None  # of `pixels` without what is repainted


def read(job: EngineJob, pipeline: Any) -> Source | None:
    """The source of a job, by its task's pipeline, at the size of the request; None for txt2img.

    Where latents are to be resized, at its own size, down to a multiple of the VAE's factor.
    """
    request = job.model_request
    if request.task is Task.TXT2IMG:
        return None
    picture, mask = sized(job)
    if not isinstance(request, Inpaint):
        return Source(pipeline.image_processor.preprocess(picture))
    options: dict[str, Any] = {"height": request.height, "width": request.width}
    crop = None
    if request.padding_mask_crop is not None:
        pad = request.padding_mask_crop
        crop = pipeline.mask_processor.get_crop_region(mask, pad=pad, **options)
        options |= {"crops_coords": crop, "resize_mode": "fill"}
    pixels = pipeline.image_processor.preprocess(picture, **options)
    mask_pixels = pipeline.mask_processor.preprocess(mask, **options)
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


def resized(latents: torch.Tensor, size: tuple[int, int], how: LatentResize) -> torch.Tensor:
    """Latents (1, C, h, w) at another size, which is height and width in latent pixels."""
    mode = how.value.removesuffix("-antialiased")
    # On CPUs PyTorch has no antialiasing in half precision.
    found: torch.Tensor = torch.nn.functional.interpolate(
        latents.float(), size, mode=mode, antialias=mode != how.value
    )
    return found.to(latents)


def refilled(
    latents: torch.Tensor, mask: torch.Tensor, content: MaskedContent, seed: int
) -> torch.Tensor:
    """Latents (1, C, h, w), scaled for the UNet, with other content under the mask (1, 1, H, W).

    The noise is drawn by a generator of its own, so that later draws stay the same whatever the
    content.
    """
    if content is MaskedContent.ORIGINAL:
        return latents
    hole = torch.nn.functional.interpolate(mask, latents.shape[-2:]).to(latents)
    kept = latents * (1 - hole)
    if content is MaskedContent.NOTHING:
        return kept
    generator = torch.Generator("cpu").manual_seed(seed)
    where: dict[str, Any] = {"device": latents.device, "dtype": latents.dtype}
    filled: torch.Tensor = kept + hole * randn_tensor(latents.shape, generator=generator, **where)
    return filled
