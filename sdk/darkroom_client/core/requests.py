"""The requests and their fields. A field that is None is not sent: the server's default applies.

Written by `sdk/write_requests.py` from the API document: change the server's `requests.py`, and
run `make generate`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from darkroom_client.core.lora import Lora
from darkroom_client.core.records import Task
from darkroom_client.core.sources import PictureSource

ImageFormat: TypeAlias = Literal["png", "jpeg", "webp"]
LatentResize: TypeAlias = Literal[
    "bilinear", "bilinear-antialiased", "bicubic", "bicubic-antialiased", "nearest", "nearest-exact"
]
MaskedContent: TypeAlias = Literal["original", "noise", "nothing"]


@dataclass(frozen=True)
class Request:
    """A request for a job."""

    task: ClassVar[Task]

    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Txt2Img(Request):
    """Generate a picture from a prompt. Fields left out take the model's defaults.

    Attributes:
        prompt: What to draw; `(word:1.3)` weighs a word.
        negative_prompt: What the picture should not show.
        width: Pixels, a multiple of 8. 8 to 8192.
        height: Pixels, a multiple of 8. 8 to 8192.
        num_inference_steps: Denoising steps. 1 to 150.
        guidance_scale: 1 or less turns guidance off and halves the work. 0 to 30.
        guidance_rescale: How far guidance is rescaled against overexposure (arXiv 2305.08891,
            3.4). 0 to 1. 0.0 by default.
        num_images: Number of images; image i has the seed `seed + i`. 1 to 8. 1 by default.
        seed: Random when left out. 0 to 4294967295.
        scheduler: A name from `Client.schedulers`.
        model: A name from `Client.models`.
        model_hash: SHA-256 of the model's file, or its first digits; jobs tell it once it is
            known. If it is another one now, a note says so.
        lora_hashes: AutoV3 of the LoRAs' files, the first 12 digits of the SHA-256 of the
            tensors: `NAME: HASH, NAME: HASH`. As `model_hash`.
        loras: Names from `Client.loras`, with scales; `<lora:NAME:SCALE>` in the prompt too.
        clip_skip: Number of last text-encoder layers to skip. 0 to 11. 0 by default.
        output_format: Each holds the settings of the image: PNG as text, JPEG and WebP in EXIF.
            png by default.
        exact: Never share a UNet call, so that bytes do not depend on other jobs.
        explain: Keep what shows how each picture was made, for `GET /jobs/{job_id}/explain`.
        webhook: URL that is called when the job has ended; the owner must allow it.
    """

    task: ClassVar[Task] = Task.TXT2IMG

    prompt: str
    _: KW_ONLY
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    num_images: int | None = None
    seed: int | None = None
    scheduler: str | None = None
    model: str | None = None
    model_hash: str | None = None
    lora_hashes: str | None = None
    loras: Sequence[Lora] | None = None
    clip_skip: int | None = None
    output_format: ImageFormat | None = None
    exact: bool | None = None
    explain: bool | None = None
    webhook: str | None = None


@dataclass(frozen=True, kw_only=True)
class Img2Img(Txt2Img):
    """Generate a picture from another one and a prompt.

    Attributes:
        image: A path, bytes, a PIL image, a NumPy array, or an image of an earlier job.
        strength: How much may change, from nothing at 0 to everything at 1. Above 0 to 1. 0.75 by
            default.
        latent_resize: Resize the encoded picture instead of its pixels.
    """

    task: ClassVar[Task] = Task.IMG2IMG

    image: PictureSource
    strength: float | None = None
    latent_resize: LatentResize | None = None


@dataclass(frozen=True, kw_only=True)
class Inpaint(Txt2Img):
    """Repaint the white part of a mask.

    Attributes:
        image: A path, bytes, a PIL image, a NumPy array, or an image of an earlier job.
        mask_image: The same, as large as `image`. White is repainted.
        strength: How much may change in the white part. Above 0 to 1. 1.0 by default.
        mask_blur: Gaussian radius in pixels of the image. 0 to 256. 0 by default.
        padding_mask_crop: Repaint an enlarged crop around the mask, with this margin in pixels. 0
            to 4096.
        invert_mask: Repaint the black part instead.
        keep_unmasked: Put the original's pixels back where the mask is black, exactly.
        masked_content: Start of the repainted part: the original, latent noise, or zero latents.
            Without effect at strength 1. original by default.
    """

    task: ClassVar[Task] = Task.INPAINT

    image: PictureSource
    mask_image: PictureSource
    strength: float | None = None
    mask_blur: int | None = None
    padding_mask_crop: int | None = None
    invert_mask: bool | None = None
    keep_unmasked: bool | None = None
    masked_content: MaskedContent | None = None


@dataclass(frozen=True, kw_only=True)
class Edit(Txt2Img):
    """Change pictures as the prompt says.

    Attributes:
        references: The pictures that the prompt speaks of, in its order. The first one gives the
            size unless width and height are sent. 1 to 16. Each is a path, bytes, a PIL image, a
            NumPy array, or an image of an earlier job.
    """

    task: ClassVar[Task] = Task.EDIT

    references: Sequence[PictureSource]


@dataclass(frozen=True, kw_only=True)
class Upscale(Request):
    """Enlarge a picture with an upscaling network.

    Attributes:
        image: A path, bytes, a PIL image, a NumPy array, or an image of an earlier job.
        upscaler: A name from `Client.upscalers`. Left out, the server takes one that makes the
            picture large enough: the owner's, or else tintype-x2 or tintype-x4.
        scale: Factor, at most the upscaler's own, which is also the default. 2 if no upscaler is
            named. 1 to 16.
        output_format: Each holds the settings of the image: PNG as text, JPEG and WebP in EXIF.
            png by default.
        webhook: URL that is called when the job has ended; the owner must allow it.
    """

    task: ClassVar[Task] = Task.UPSCALE

    image: PictureSource
    upscaler: str | None = None
    scale: float | None = None
    output_format: ImageFormat | None = None
    webhook: str | None = None
