"""The owner's notes on a model: `darkroom.json` in its folder, `<name>.json` beside its file."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from darkroom.catalog import schedulers
from darkroom.catalog.reading import UnusableError, read_json
from darkroom.requests import MAX_CLIP_SKIP, PositiveSize, Schema

NOTES = "darkroom.json"


class NotedDefaults(Schema):
    """Defaults of requests; see `ModelDefaults`."""

    width: PositiveSize | None = None
    height: PositiveSize | None = None
    num_inference_steps: int | None = Field(None, ge=1, le=150)
    guidance_scale: float | None = Field(None, ge=0, le=30)
    scheduler: str | None = None


class NotedLimits(Schema):
    """Limits of requests; see `ModelLimits`."""

    min_side: int | None = Field(None, ge=8, le=8192)
    max_side: int | None = Field(None, ge=8, le=8192)
    max_pixels: int | None = Field(None, ge=64)
    multiple_of: int | None = Field(None, ge=1, le=1024)
    max_clip_skip: int | None = Field(None, ge=0, le=MAX_CLIP_SKIP)


class Notes(Schema):
    """The owner's notes, which override what the model's files say.

    Attributes:
        description: one line for people.
        prediction_type: what the UNet was trained to predict.
        rescale_betas_zero_snr: whether it was trained with zero terminal SNR
            (arXiv 2305.08891).
        timestep_spacing: distilled models need `trailing`.
        config: of a single file: an embedded one, or a folder in `configs/`.
        vae: file or folder in `vae/` that replaces the model's own.
        tiny_vae: file or folder in `vae/` of a small VAE, used if the settings say so.
        latent_rgb: for previews, a row of red, green and blue for each latent channel, and one of
            offsets.
    """

    description: str = Field("", max_length=1000)
    defaults: NotedDefaults = NotedDefaults()
    limits: NotedLimits = NotedLimits()
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    rescale_betas_zero_snr: bool | None = None
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    config: str | None = None
    vae: str | None = None
    tiny_vae: str | None = None
    latent_rgb: tuple[tuple[float, float, float], ...] | None = None


def read(path: Path) -> Notes:
    """Read notes; empty ones if there is no file.

    Raises:
        UnusableError: a key is wrong; names it.
    """
    if not path.is_file():
        return Notes()
    try:
        noted = Notes.model_validate(read_json(path))
    except ValidationError as error:
        wrong = "; ".join(
            ".".join(map(str, item["loc"]))
            + (" is no key of ours" if item["type"] == "extra_forbidden" else f": {item['msg']}")
            for item in error.errors(include_url=False, include_input=False)
        )
        raise UnusableError(f"its notes {path.name} are not valid: {wrong}") from None
    if noted.defaults.scheduler is not None:
        try:
            schedulers.find(noted.defaults.scheduler)
        except schedulers.UnknownSchedulerError as error:
            raise UnusableError(f"its notes {path.name}: {error}") from None
    return noted
