"""What may be asked for. What is left out (or None) takes the model's default."""

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from darkroom_client.core.lora import Lora
from darkroom_client.core.records import Task
from darkroom_client.core.sources import PictureSource

ImageFormat: TypeAlias = Literal["png", "jpeg", "webp"]
LatentResize: TypeAlias = Literal[
    "bilinear",
    "bilinear-antialiased",
    "bicubic",
    "bicubic-antialiased",
    "nearest",
    "nearest-exact",
]
MaskedContent: TypeAlias = Literal["original", "noise", "nothing"]


@dataclass(frozen=True)
class Request:
    """What may be asked for. Fields that are None are not said."""

    task: ClassVar[Task]

    def given(self) -> dict[str, Any]:
        """The fields that were said."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Txt2Img(Request):
    """Develop a picture from words.

    Attributes:
        prompt: what to draw; `(word:1.3)` weighs a word.
        negative_prompt: what to keep away from.
        width: in pixels, a multiple of 8 within the model's limits.
        height: the same.
        num_inference_steps: 1 to 150.
        guidance_scale: 0 to 30; 1 or less turns guidance off and halves the work.
        num_images: 1 to 8; image *i* is made from `seed + i`.
        seed: 0 to 2**32 - 1; random when left out, and reported in any case.
        scheduler: a name from `Client.schedulers`.
        model: a name from `Client.models`.
        loras: at most 8.
        clip_skip: last layers of the text encoder to leave out, 0 to 11.
        output_format: png carries how the picture was made.
        exact: never share a UNet call, so that the bytes do not depend on other jobs.
        webhook: an address that the server tells when the job has ended; its owner must allow it.
    """

    task: ClassVar[Task] = Task.TXT2IMG

    prompt: str
    _: KW_ONLY
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_images: int | None = None
    seed: int | None = None
    scheduler: str | None = None
    model: str | None = None
    loras: Sequence[Lora] | None = None
    clip_skip: int | None = None
    output_format: ImageFormat | None = None
    exact: bool | None = None
    webhook: str | None = None


@dataclass(frozen=True, kw_only=True)
class Img2Img(Txt2Img):
    """Develop a picture from another one and words.

    Attributes:
        image: to begin with; without `width` and `height` its size counts.
        strength: how much may change, above 0 (nothing) to 1 (everything). 0.75 when left out.
        latent_resize: resize the encoded picture to the size asked for instead of its pixels.
    """

    task: ClassVar[Task] = Task.IMG2IMG

    image: PictureSource
    strength: float | None = None
    latent_resize: LatentResize | None = None


@dataclass(frozen=True, kw_only=True)
class Inpaint(Txt2Img):
    """Repaint the white part of a mask.

    Attributes:
        image: to begin with; without `width` and `height` its size counts.
        strength: how much may change, above 0 (nothing) to 1 (everything). 1 when left out.
        mask_image: as large as `image`. Where it has no light at all, alpha counts.
        mask_blur: radius in pixels of the image, 0 to 256.
        padding_mask_crop: repaint only the mask's surroundings, this many pixels wide, enlarged.
        invert_mask: repaint the black part instead.
        keep_unmasked: put the original's pixels back where nothing is repainted, exactly; the
            server does unless told not to.
        masked_content: what repainting begins from: what is there, latent noise, or nothing.
    """

    task: ClassVar[Task] = Task.INPAINT

    image: PictureSource
    strength: float | None = None
    mask_image: PictureSource
    mask_blur: int | None = None
    padding_mask_crop: int | None = None
    invert_mask: bool | None = None
    keep_unmasked: bool | None = None
    masked_content: MaskedContent | None = None


@dataclass(frozen=True, kw_only=True)
class Upscale(Request):
    """Make a picture larger by a network that was trained to.

    Attributes:
        image: to make larger.
        upscaler: a name from `Client.upscalers`.
        scale: how many times larger, 1 to 16; the upscaler's own factor when left out, and at most.
        output_format: png carries how the picture was made.
        webhook: as for other tasks.
    """

    task: ClassVar[Task] = Task.UPSCALE

    image: PictureSource
    upscaler: str
    scale: float | None = None
    output_format: ImageFormat | None = None
    webhook: str | None = None
