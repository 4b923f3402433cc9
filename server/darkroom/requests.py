"""The requests of the API, by task, and the types of their fields.

All types are frozen. Nothing here depends on HTTP, SQL or torch.
"""

import enum
import operator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_SEED = 2**32 - 1
MAX_PROMPT_CHARS = 8_000
MAX_FILE_NAME = 255  # characters: models are called like their files
MAX_IMAGES_PER_JOB = 8
MAX_CLIP_SKIP = 11
MAX_REFERENCES = 16
MAX_LORAS = 8
MAX_LORA_SCALE = 4.0

# To try the API with: 8×8 pixels, as PNG.
WHITE_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAADU"
    "lEQVR42mP4z8SADAEPcQEOdvOI0AAAAABJRU5ErkJggg=="
)


class Schema(BaseModel):
    """A frozen pydantic model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(enum.StrEnum):
    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    EDIT = "edit"
    UPSCALE = "upscale"


# The tasks of diffusion models; upscalers are networks of their own.
MODEL_TASKS = (Task.TXT2IMG, Task.IMG2IMG, Task.INPAINT)


class Scope(enum.StrEnum):
    """The permissions of a token."""

    USE = "use"  # make images, and see one's own
    OWN = "own"  # also see all images, and manage tokens


class OutputFormat(enum.StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        return f"image/{self.value}"


class LatentResize(enum.StrEnum):
    """Interpolation of resized latents."""

    BILINEAR = "bilinear"
    BILINEAR_ANTIALIASED = "bilinear-antialiased"
    BICUBIC = "bicubic"
    BICUBIC_ANTIALIASED = "bicubic-antialiased"
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"


class MaskedContent(enum.StrEnum):
    """The start of the repainted part, as far as `strength` keeps anything of it."""

    ORIGINAL = "original"
    NOISE = "noise"
    NOTHING = "nothing"


class Lora(Schema):
    """A low-rank adapter and how strongly it is applied."""

    name: str = Field(min_length=1, max_length=200)
    scale: float = Field(1.0, ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE)
    text_scale: float | None = Field(
        None,
        ge=-MAX_LORA_SCALE,
        le=MAX_LORA_SCALE,
        exclude_if=lambda scale: scale is None,
        description="How strongly it changes the text encoders; `scale` when left out.",
    )

    @property
    def scale_of_text(self) -> float:
        return self.scale if self.text_scale is None else self.text_scale


# --- requests ------------------------------------------------------------------------------

PositiveSize = Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
Strength = Annotated[float, Field(gt=0, le=1)]
Format = Annotated[
    OutputFormat,
    Field(description="Each holds the settings of the image: PNG as text, JPEG and WebP in EXIF."),
]
ImageSource = Annotated[
    str,
    Field(
        min_length=1,
        description="A file part, base64, a data URI, or `image:<id>` of a stored picture.",
        json_schema_extra={"examples": [WHITE_PICTURE, "image:0192c7d1a3f04c2e0192c7d1-0"]},
    ),
]


WebhookUrl = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=2000,
        description="URL that is called when the job has ended; the owner must allow it.",
    ),
]


class Txt2ImgRequest(Schema):
    """Generate a picture from a prompt. Fields left out take the model's defaults."""

    task: ClassVar[Task] = Task.TXT2IMG

    prompt: str = Field(
        max_length=MAX_PROMPT_CHARS,
        description="What to draw; `(word:1.3)` weighs a word.",
        examples=["a red fox"],
    )
    negative_prompt: str = Field(
        "", max_length=MAX_PROMPT_CHARS, description="What the picture should not show."
    )
    width: PositiveSize | None = Field(None, description="Pixels, a multiple of 8.")
    height: PositiveSize | None = Field(None, description="Pixels, a multiple of 8.")
    num_inference_steps: int | None = Field(None, ge=1, le=150, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None, ge=0, le=30, description="1 or less turns guidance off and halves the work."
    )
    guidance_rescale: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=operator.not_,  # so that pictures made without it keep their bytes
        description="How far guidance is rescaled against overexposure (arXiv 2305.08891, 3.4).",
    )
    num_images: int = Field(
        1,
        ge=1,
        le=MAX_IMAGES_PER_JOB,
        description="Number of images; image i has the seed `seed + i`.",
    )
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Random when left out.")
    scheduler: str | None = Field(
        None, max_length=MAX_FILE_NAME, description="A name from `GET /schedulers`."
    )
    model: str | None = Field(
        None, max_length=MAX_FILE_NAME, description="A name from `GET /models`."
    )
    model_hash: str | None = Field(
        None,
        pattern="^[0-9a-f]{10,64}$",
        exclude_if=lambda digits: digits is None,
        description="SHA-256 of the model's file, or its first digits; jobs tell it once it is "
        "known. If it is another one now, a note says so.",
    )
    lora_hashes: str | None = Field(
        None,
        max_length=2000,
        exclude_if=lambda text: text is None,
        description="AutoV3 of the LoRAs' files, the first 12 digits of the SHA-256 of the "
        "tensors: `NAME: HASH, NAME: HASH`. As `model_hash`.",
    )
    loras: tuple[Lora, ...] = Field(
        default_factory=tuple,
        max_length=MAX_LORAS,
        description="Names from `GET /loras`, with scales; `<lora:NAME:SCALE>` in the prompt too.",
    )
    clip_skip: int = Field(
        0, ge=0, le=MAX_CLIP_SKIP, description="Number of last text-encoder layers to skip."
    )
    output_format: Format = OutputFormat.PNG
    exact: bool = Field(
        False, description="Never share a UNet call, so that bytes do not depend on other jobs."
    )
    explain: bool = Field(
        False,
        exclude_if=operator.not_,  # so that pictures made without it keep their bytes
        description="Keep what shows how each picture was made, for `GET /jobs/{job_id}/explain`.",
    )
    webhook: WebhookUrl = None


class Img2ImgRequest(Txt2ImgRequest):
    """Generate a picture from another one and a prompt."""

    task: ClassVar[Task] = Task.IMG2IMG

    image: ImageSource
    strength: Strength = Field(
        0.75, description="How much may change, from nothing at 0 to everything at 1."
    )
    latent_resize: LatentResize | None = Field(
        None, description="Resize the encoded picture instead of its pixels."
    )


class InpaintRequest(Txt2ImgRequest):
    """Repaint the white part of a mask."""

    task: ClassVar[Task] = Task.INPAINT

    image: ImageSource
    mask_image: ImageSource
    strength: Strength = Field(1.0, description="How much may change in the white part.")
    mask_blur: int = Field(0, ge=0, le=256, description="Gaussian radius in pixels of the image.")
    padding_mask_crop: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Repaint an enlarged crop around the mask, with this margin in pixels.",
    )
    invert_mask: bool = Field(False, description="Repaint the black part instead.")
    keep_unmasked: bool = Field(
        True, description="Put the original's pixels back where the mask is black, exactly."
    )
    masked_content: MaskedContent = Field(
        MaskedContent.ORIGINAL,
        description="Start of the repainted part: the original, latent noise, or zero latents. "
        "Without effect at strength 1.",
    )


class EditRequest(Txt2ImgRequest):
    """Change pictures as the prompt says."""

    task: ClassVar[Task] = Task.EDIT

    references: tuple[ImageSource, ...] = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="The pictures that the prompt speaks of, in its order. The first one gives "
        "the size unless width and height are sent.",
    )


class UpscaleRequest(Schema):
    """Enlarge a picture with an upscaling network."""

    task: ClassVar[Task] = Task.UPSCALE

    image: ImageSource
    upscaler: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="A name from `GET /upscalers`. Left out, the server takes one that makes the "
        "picture large enough: the owner's, or else tintype-x2 or tintype-x4.",
    )
    scale: float | None = Field(
        None,
        ge=1,
        le=16,
        allow_inf_nan=False,
        description="Factor, at most the upscaler's own, which is also the default. "
        "2 if no upscaler is named.",
    )
    output_format: Format = OutputFormat.PNG
    webhook: WebhookUrl = None


# --- resolved requests ---------------------------------------------------------------------

DEFAULT_SCALE = 2.0  # of an upscaling that names neither upscaler nor scale
UPSCALERS = "upscalers/"  # in front of an upscaler's name where models' names stand


@dataclass(frozen=True)
class Workload:
    """How much work a request is, for estimates.

    Attributes:
        model: name of the model that does it.
        pixels: width × height of an image, and of what the network sees beside it.
        images: how many.
        steps: denoising steps over all images; for upscaling, tiles.
    """

    model: str
    pixels: int
    images: int
    steps: int


class Txt2Img(Txt2ImgRequest):
    """A request with nothing left open, as the queue stores it and the engine takes it.

    Its JSON without nulls is what `GET /jobs/{id}` shows. Sent back to the route of its task, it
    makes the same picture again.
    """

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    scheduler: str
    model: str
    webhook: None = None  # kept elsewhere: a request is shown to others, its address is not

    @property
    def workload(self) -> Workload:
        """Its size. Strength leaves the first steps out, as in diffusers."""
        steps = self.num_inference_steps
        if isinstance(self, Img2Img | Inpaint):
            steps = max(1, min(int(steps * self.strength), steps))
        pixels = self.width * self.height
        return Workload(self.model, pixels, self.num_images, steps * self.num_images)

    def seed_of(self, index: int) -> int:
        """Image `index`'s seed; past the largest seed it begins again at 0."""
        return (self.seed + index) % (MAX_SEED + 1)


class Img2Img(Txt2Img, Img2ImgRequest):
    """See `Txt2Img`. `image` is an `image:<id>` reference."""


class Inpaint(Txt2Img, InpaintRequest):
    """See `Txt2Img`. `image` and `mask_image` are `image:<id>` references."""


class Edit(Txt2Img, EditRequest):
    """See `Txt2Img`. Each of `references` is an `image:<id>` reference."""


class Upscale(UpscaleRequest):
    """See `Txt2Img`. `image` is an `image:<id>` reference."""

    upscaler: str
    scale: float
    webhook: None = None

    @property
    def model(self) -> str:
        """What the upscaler is called among models, whose names have no slash."""
        return UPSCALERS + self.upscaler

    def size(self, picture: tuple[int, int]) -> tuple[int, int]:
        """Width and height that a picture of this width and height is brought to."""
        return round(picture[0] * self.scale), round(picture[1] * self.scale)


AnyRequest = Txt2ImgRequest | Img2ImgRequest | InpaintRequest | EditRequest | UpscaleRequest
ResolvedRequest = Txt2Img | Img2Img | Inpaint | Edit | Upscale

# By the task that tells them apart: of what may be left open, and of what may not.
REQUESTS: dict[Task, type[AnyRequest]] = {
    kind.task: kind
    for kind in (Txt2ImgRequest, Img2ImgRequest, InpaintRequest, EditRequest, UpscaleRequest)
}
RESOLVED: dict[Task, type[ResolvedRequest]] = {
    kind.task: kind for kind in (Txt2Img, Img2Img, Inpaint, Edit, Upscale)
}


# --- devices ---------------------------------------------------------------------------------


MAX_NAME_CHARS = 100


def _printable(name: str) -> str:
    """Names are printed on terminals, which obey control characters."""
    if not name.isprintable() or name != name.strip():
        raise ValueError("has characters that cannot be printed, or space at its ends")
    return name


DeviceName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="What people call the device.",
        examples=["Ada's phone"],
    ),
    AfterValidator(_printable),
]


class TokenRequest(Schema):
    """Let a device in."""

    name: DeviceName
    scope: Scope = Scope.USE


class UnloadRequest(Schema):
    """Take a model out of memory."""

    name: str = Field(
        min_length=1,
        max_length=210,
        description="As in `/models`; an upscaler is `upscalers/NAME`.",
        examples=["tintype"],
    )


class PullRequest(Schema):
    """Download a model from a hub that the server's settings name."""

    source: str = Field(
        min_length=1,
        max_length=500,
        description="On Hugging Face: `owner/name`, or `owner/name:file` for one file. On Civitai: "
        "`civitai:MODEL` or `civitai:MODEL@VERSION`. Or the address of a page of one of them.",
        examples=["stabilityai/sdxl-turbo"],
    )
    name: str | None = Field(
        None, min_length=1, max_length=120, description="Of the model here; null for its own."
    )
    revision: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Of a repository: branch, tag or commit; null for the main branch.",
    )
    variant: str | None = Field(
        None,
        min_length=1,
        max_length=40,
        description="Of the weights, such as fp16, or plain; null for the smallest that loses "
        "nothing on a GPU.",
    )
    dry_run: bool = Field(False, description="Only tell what would be downloaded.")


class PairRequest(Schema):
    """Turn a pairing code into a token."""

    code: str = Field(max_length=32, examples=["7QX4-M2KD"])
    name: DeviceName


class CodeRequest(Schema):
    """Make a pairing code."""

    device: str | None = Field(
        None,
        max_length=32,
        description="Id of the device that gets another token. Without it, a new device is made.",
    )
    scope: Scope | None = Field(
        None, description="By default `use`, or that of the device's newest token."
    )


class RenameRequest(Schema):
    """Give a device another name."""

    name: DeviceName
