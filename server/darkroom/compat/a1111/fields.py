"""What a request may say, under A1111's names and with its defaults."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from darkroom.requests import MAX_PROMPT_CHARS, MAX_SEED

STEPS = 50
CFG_SCALE = 7.0
SIDE = 512  # pixels
STRENGTH = 0.75
MASK_BLUR = 4
MAX_INIT_IMAGES = 16


def _whole(value: Any) -> Any:
    """Clients compute numbers, and send 20.0 or 20.4 for 20."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return round(value) if isinstance(value, float) and abs(value) < 2**63 else value


def _seed(value: Any) -> int | None:
    """A seed as a number or as text. What is none, or negative, is a random one."""
    if isinstance(value, str):
        try:
            value = int(value.strip()[:40])
        except ValueError:
            return None
    if isinstance(value, float):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return value % (MAX_SEED + 1)


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


Whole = Annotated[int, BeforeValidator(_whole)]
Seed = Annotated[int | None, BeforeValidator(_seed)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
ShortText = Annotated[str, Field(max_length=300)]
Name = Annotated[ShortText | None, BeforeValidator(_text)]


class Settings(BaseModel):
    """What both tasks know. Fields that are not here are kept, to be named as ignored."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    seed: Seed = None
    subseed: Seed = None
    subseed_strength: float = 0.0
    steps: Whole = STEPS
    cfg_scale: float = CFG_SCALE
    width: Whole | None = None
    height: Whole | None = None
    batch_size: Whole = 1
    n_iter: Whole = 1
    sampler_name: Name = None
    sampler_index: Name = None
    scheduler: Name = None
    denoising_strength: float = STRENGTH
    clip_skip: Whole | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict)
    script_name: Name = None
    script_args: list[Any] = Field(default_factory=list, max_length=100)
    send_images: bool = True

    @property
    def others(self) -> dict[str, Any]:
        """What was sent beside the fields that are known here."""
        return self.model_extra or {}


class Txt2Img(Settings):
    enable_hr: bool = False
    hr_scale: float = Field(2.0, gt=0, le=16)
    hr_upscaler: Name = None
    hr_second_pass_steps: Whole = 0
    hr_resize_x: Whole = 0
    hr_resize_y: Whole = 0
    hr_sampler_name: Name = None
    hr_scheduler: Name = None
    hr_checkpoint_name: Name = None
    hr_prompt: Prompt = ""
    hr_negative_prompt: Prompt = ""


class Img2Img(Settings):
    init_images: list[str] = Field(default_factory=list, max_length=MAX_INIT_IMAGES)
    mask: str | None = None
    mask_blur: Whole = MASK_BLUR
    inpainting_fill: Whole = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: Whole = 0
    inpainting_mask_invert: bool = False
    resize_mode: Whole = 0
    include_init_images: bool = False
