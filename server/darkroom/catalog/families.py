"""The families of models: a row for each says how diffusers draws it and what requests may ask.

The rows are those of diffusers' AutoPipeline (`diffusers.pipelines.auto_pipeline`), copied because
importing diffusers is too slow for the web process; a test compares each fact with the pipeline's
source. Pipelines are left out if they need an input that requests do not have, or a second
repository, or do not make one picture: see `LEFT_OUT`.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from darkroom.errors import message
from darkroom.requests import MODEL_TASKS, Task

TASKS = (*MODEL_TASKS, Task.EDIT)
WHOLE = "whole"  # the name of families that have none of their own
MEGAPIXEL = 1024 * 1024
BLANK = " "  # the negative prompt that Qwen-Image's authors advise where there is none
# The scale of negative prompts where guidance_scale is the transformer's. Nobody advises one for
# FLUX.1; this is the one that diffusers tests (https://github.com/huggingface/diffusers/pull/10539).
NEGATIVE_SCALE = 2.0


class Guidance(enum.Enum):
    """How a pipeline follows the prompt more closely, and what turns that off."""

    CFG = "guidance_scale guides above 1"
    CFG_ADDED = "guidance_scale is added to the prompt's own part, so it guides above 0"
    TRUE_CFG = "true_cfg_scale guides above 1, and only beside a negative prompt"
    EMBEDDED = "the transformer reads guidance_scale; true_cfg_scale is for negative prompts"
    NONE = "nothing guides"

    def arguments(self, scale: float, negative_prompt: str) -> dict[str, Any]:
        """The arguments of a pipeline's call. A scale of 1 or less turns guidance off."""
        negative = {"negative_prompt": negative_prompt} if negative_prompt else {}
        match self:
            case Guidance.CFG:
                return {"guidance_scale": scale, **negative}
            case Guidance.CFG_ADDED:
                return {"guidance_scale": scale if scale > 1 else 0.0, **negative}
            case Guidance.TRUE_CFG if scale > 1:
                return {"true_cfg_scale": scale, "negative_prompt": negative_prompt or BLANK}
            case Guidance.TRUE_CFG:
                return {"true_cfg_scale": 1.0}
            case Guidance.EMBEDDED if negative and scale > 1:
                return {"guidance_scale": scale, "true_cfg_scale": NEGATIVE_SCALE, **negative}
            case Guidance.EMBEDDED:
                return {"guidance_scale": scale}
        return {"guidance_scale": 1.0}


@dataclass(frozen=True)
class Width:
    """A width of the network that denoises, which other parts have to have together.

    Attributes:
        reads: key of the network's configuration.
        parts: names of the parts, and the keys of their configurations.
        times: how often the network reads each number of theirs, side by side.
    """

    reads: str
    parts: tuple[tuple[str, str], ...]
    times: int = 1


PACKED = Width("in_channels", (("vae", "latent_channels"),), times=4)  # 2×2 latent pixels a token
FLUX_WIDTHS = (
    Width("joint_attention_dim", (("text_encoder_2", "d_model"),)),
    Width("pooled_projection_dim", (("text_encoder", "hidden_size"),)),
    PACKED,
)
FLUX2_WIDTHS = (
    # The outputs of three of its layers.
    Width("joint_attention_dim", (("text_encoder", "hidden_size"),), times=3),
    PACKED,
)
QWEN_WIDTHS = (
    Width("joint_attention_dim", (("text_encoder", "hidden_size"),)),
    Width("in_channels", (("vae", "z_dim"),), times=4),
)

# Optional fields of requests that not every family takes.
VARYING = (
    "negative_prompt",
    "guidance_scale",
    "guidance_rescale",
    "loras",
    "clip_skip",
    "strength",
    "latent_resize",
    "padding_mask_crop",
    "masked_content",
    "explain",
)
GUIDED = frozenset({"guidance_scale", "negative_prompt"})
IMG2IMG = frozenset({Task.IMG2IMG})


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        name: on the wire.
        steps: default of num_inference_steps.
        guidance_scale: its default.
        txt2img: class name in diffusers without `Pipeline`; None if there is none for the task.
        img2img: the same.
        inpaint: the same.
        edit: the same, of pipelines that change pictures as the prompt says, with no strength;
            diffusers calls that img2img.
        takes: those of `VARYING` that its pipelines honour, each for the tasks that have it.
        guidance: how `guidance_scale` and `negative_prompt` reach the pipeline.
        max_tokens: after which the pipeline cuts a prompt, its `max_sequence_length`; None if it
            cuts none.
        side: pixels a side that a model is made for whose configuration does not say it.
        packing: latent pixels a side that make one token; None is the transformer's `patch_size`.
        rounds_up: whether ⌈steps · strength⌉ steps are done, instead of ⌊steps · strength⌋.
        max_references: pictures that an instruction to edit may speak of; 0 if it edits none.
        reference_side: pixels that each side of a reference has to have.
        reference_ratio: how many times as long one side of a reference may be as the other.
        area: pixels of the pictures that it edits to, in the reference's proportions; None keeps
            the reference's size.
        area_argument: by which the pipeline is told another area, which it keeps to otherwise.
        few_steps: default of num_inference_steps of models distilled to need no guidance.
        sizeless: tasks whose pipelines make a picture of the size that they are given.
        widths: by which the parts of a model must fit together.
        positions_in_all: whether its transformer's `pos_embed_max_size` counts the positions of a
            whole picture, not of a side. Such a model's `sample_size` is not what it is made for.
        needs: a Python package without which diffusers does not have its pipelines.
        loras: the kind of LoRAs that its models take, see `lora_kinds`; None if they take none.
        arguments: of every call.
    """

    name: str
    steps: int
    guidance_scale: float
    txt2img: str | None
    img2img: str | None = None
    inpaint: str | None = None
    edit: str | None = None
    takes: frozenset[str] = GUIDED
    guidance: Guidance = Guidance.CFG
    max_tokens: int | None = None
    side: int = 1024
    packing: int | None = 2
    rounds_up: bool = True
    max_references: int = 0
    reference_side: int = 1
    reference_ratio: float = math.inf
    area: int | None = None
    area_argument: str | None = None
    few_steps: int = 8
    sizeless: frozenset[Task] = frozenset()
    widths: tuple[Width, ...] = ()
    positions_in_all: bool = False
    needs: str | None = None
    loras: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def pipeline(self, task: Task) -> str | None:
        """Class name in diffusers for the task."""
        name = getattr(self, task)
        return None if name is None else f"{name}Pipeline"

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task for task in TASKS if self.pipeline(task) is not None)

    @property
    def lacks(self) -> str | None:
        """What has to be installed first; None if everything is."""
        if self.needs is None or find_spec(self.needs) is not None:
            return None
        return f"it cannot be loaded without {self.needs}: `pip install {self.needs}`"

    def why_no_reference(self, width: int, height: int) -> str | None:
        """Why its pipeline refuses a reference of that size; None if it takes it."""
        if min(width, height) < self.reference_side:
            return message(
                "reference_small",
                "is {width}×{height}; each side has to have {least} pixels",
                width=width,
                height=height,
                least=self.reference_side,
            )
        if max(width, height) > self.reference_ratio * min(width, height):
            return message(
                "reference_long",
                "is {width}×{height}; one side may be {most:g} times as long as the other",
                width=width,
                height=height,
                most=self.reference_ratio,
            )
        return None

    def shown_pixels(self, task: Task, sizes: Sequence[tuple[int, int]]) -> int:
        """Pixels that its network sees at every step besides those of the picture that it makes.

        Args:
            sizes: width and height of the request's pictures, a mask last.
        """
        if task is Task.INPAINT and self.max_references:
            sizes = sizes[:1]
        elif task is not Task.EDIT:
            return 0
        return sum(self.area or min(width * height, MEGAPIXEL) for width, height in sizes)

    def steps_done(self, steps: int, strength: float) -> int:
        """The steps that img2img and inpaint do, in diffusers' arithmetic; 0 is refused."""
        if self.rounds_up:
            return steps - int(steps - min(steps * strength, steps))
        return min(int(steps * strength), steps)


def _stable_diffusion(name: str, prefix: str, guidance_scale: float, *encoders: str) -> Family:
    """SD or SDXL; their UNets are stepped by our own samples, with every field and scheduler."""
    return Family(
        name,
        25,
        guidance_scale,
        prefix,
        f"{prefix}Img2Img",
        f"{prefix}Inpaint",
        takes=frozenset(VARYING),
        packing=1,
        rounds_up=False,
        few_steps=4,
        widths=(Width("cross_attention_dim", tuple((part, "hidden_size") for part in encoders)),),
        loras="unet",
    )


def _sd3(name: str, prefix: str, inpaint: str | None) -> Family:
    return Family(
        name,
        28,
        7.0,
        prefix,
        f"{prefix}Img2Img",
        inpaint,
        takes=GUIDED | {"strength", "padding_mask_crop", *(("explain",) if name != WHOLE else ())},
        max_tokens=256,
        packing=None,
        few_steps=4,
        widths=(
            Width("joint_attention_dim", (("text_encoder_3", "d_model"),)),
            Width(
                "pooled_projection_dim",
                (("text_encoder", "projection_dim"), ("text_encoder_2", "projection_dim")),
            ),
            Width("in_channels", (("vae", "latent_channels"),)),
        ),
        loras="sd3" if name != WHOLE else None,
    )


def _unet(
    steps: int,
    guidance_scale: float,
    txt2img: str,
    img2img: str | None = None,
    inpaint: str | None = None,
    **more: Any,
) -> Family:
    """A UNet that its own pipeline steps."""
    takes = GUIDED if img2img is None else GUIDED | {"strength"}
    more = {"takes": takes, "packing": 1, "rounds_up": False, **more}
    return Family(WHOLE, steps, guidance_scale, txt2img, img2img, inpaint, **more)


# Key in diffusers' AutoPipeline → what it is.
FAMILIES: Mapping[str, Family] = {
    "stable-diffusion": _stable_diffusion("sd", "StableDiffusion", 7.5, "text_encoder"),
    "stable-diffusion-xl": _stable_diffusion(
        "sdxl", "StableDiffusionXL", 5.0, "text_encoder", "text_encoder_2"
    ),
    "stable-diffusion-3": _sd3("sd3", "StableDiffusion3", "StableDiffusion3Inpaint"),
    "stable-diffusion-3-pag": _sd3(WHOLE, "StableDiffusion3PAG", None),
    "flux": Family(
        "flux",
        28,
        3.5,
        "Flux",
        "FluxImg2Img",
        "FluxInpaint",
        takes=GUIDED | {"strength", "padding_mask_crop", "explain"},
        guidance=Guidance.EMBEDDED,
        max_tokens=512,
        widths=FLUX_WIDTHS,
        few_steps=4,
        loras="flux",
    ),
    "flux-kontext": Family(
        "flux-kontext",
        28,
        3.5,
        "FluxKontext",
        edit="FluxKontext",
        takes=GUIDED | {"explain"},
        guidance=Guidance.EMBEDDED,
        max_tokens=512,
        max_references=1,
        area=MEGAPIXEL,
        widths=FLUX_WIDTHS,
        area_argument="max_area",
        loras="flux",
    ),
    # Its negative prompt is always empty. How many references FLUX.2's models take well:
    # https://docs.bfl.ai/guides/prompting_editing_overview
    "flux2-klein": Family(
        "flux2-klein",
        50,
        4.0,
        "Flux2Klein",
        edit="Flux2Klein",
        takes=frozenset({"guidance_scale", "explain"}),
        max_tokens=512,
        max_references=4,
        reference_side=64,
        reference_ratio=8,
        widths=FLUX2_WIDTHS,
        few_steps=4,
        loras="flux2",
    ),
    "flux2": Family(
        "flux2",
        50,
        4.0,
        "Flux2",
        edit="Flux2",
        takes=frozenset({"guidance_scale", "explain"}),
        guidance=Guidance.EMBEDDED,
        max_tokens=512,
        max_references=6,
        reference_side=64,
        reference_ratio=8,
        widths=FLUX2_WIDTHS,
        loras="flux2",
    ),
    "z-image": Family(
        "z-image",
        50,
        5.0,
        "ZImage",
        "ZImageImg2Img",
        "ZImageInpaint",
        takes=GUIDED | {"strength", "explain"},
        guidance=Guidance.CFG_ADDED,
        max_tokens=512,
        widths=(
            Width("cap_feat_dim", (("text_encoder", "hidden_size"),)),
            Width("in_channels", (("vae", "latent_channels"),)),
        ),
        few_steps=9,
        loras="z-image",
    ),
    "z-image-omni": Family(
        WHOLE, 50, 5.0, "ZImageOmni", guidance=Guidance.CFG_ADDED, max_tokens=512, few_steps=9
    ),
    "qwenimage": Family(
        "qwen-image",
        50,
        4.0,
        "QwenImage",
        "QwenImageImg2Img",
        "QwenImageInpaint",
        takes=GUIDED | {"strength", "padding_mask_crop", "explain"},
        guidance=Guidance.TRUE_CFG,
        widths=QWEN_WIDTHS,
        max_tokens=512,
        loras="qwen-image",
    ),
    # Inpainting takes no crop: the pipeline resizes the picture to a megapixel, but not the mask.
    "qwenimage-edit": Family(
        "qwen-image-edit",
        50,
        4.0,
        None,
        inpaint="QwenImageEditInpaint",
        edit="QwenImageEdit",
        takes=GUIDED | {"strength"},
        guidance=Guidance.TRUE_CFG,
        widths=QWEN_WIDTHS,
        max_references=1,
        area=MEGAPIXEL,
        loras="qwen-image",
    ),
    # Its authors find that it works best with one to three pictures:
    # https://huggingface.co/Qwen/Qwen-Image-Edit-2509
    "qwenimage-edit-plus": Family(
        "qwen-image-edit-plus",
        50,
        4.0,
        None,
        edit="QwenImageEditPlus",
        guidance=Guidance.TRUE_CFG,
        widths=QWEN_WIDTHS,
        max_references=3,
        area=MEGAPIXEL,
        loras="qwen-image",
    ),
    # 16 pixels a latent pixel, which its VAE's configuration does not say.
    "qwenimage21": Family(
        WHOLE, 40, 1.0, "QwenImage21", guidance=Guidance.TRUE_CFG, packing=4, few_steps=8
    ),
    "auraflow": Family(
        "auraflow",
        50,
        3.5,
        "AuraFlow",
        max_tokens=256,
        widths=(
            Width("joint_attention_dim", (("text_encoder", "d_model"),)),
            Width("in_channels", (("vae", "latent_channels"),)),
        ),
        takes=GUIDED | {"explain"},
        positions_in_all=True,
        loras="auraflow",
    ),
    "chroma": Family(WHOLE, 35, 5.0, "Chroma", max_tokens=512, loras="flux"),
    "cogview3": Family(WHOLE, 50, 5.0, "CogView3Plus", max_tokens=224),
    "cogview4": Family(WHOLE, 50, 5.0, "CogView4", max_tokens=1024),
    "glm_image": Family(
        WHOLE,
        50,
        1.5,
        "GlmImage",
        takes=frozenset({"guidance_scale"}),
        max_tokens=2048,
        packing=4,
    ),
    "hunyuan": Family(WHOLE, 50, 5.0, "HunyuanDiT"),
    "hunyuan-pag": Family(WHOLE, 50, 5.0, "HunyuanDiTPAG"),
    # A constant scale instead of its schedule, which is of 48 steps and no others.
    "ideogram4": Family(
        WHOLE,
        48,
        7.0,
        "Ideogram4",
        takes=frozenset({"guidance_scale"}),
        max_tokens=2048,
        side=2048,
        arguments={"guidance_schedule": None},
    ),
    "kandinsky3": _unet(25, 3.0, "Kandinsky3", "Kandinsky3Img2Img", packing=2, sizeless=IMG2IMG),
    "kolors": _unet(50, 5.0, "Kolors", "KolorsImg2Img", max_tokens=256, needs="sentencepiece"),
    "kolors-pag": _unet(50, 5.0, "KolorsPAG", max_tokens=256, needs="sentencepiece"),
    "krea2": Family(WHOLE, 28, 4.5, "Krea2", guidance=Guidance.CFG_ADDED, max_tokens=512),
    "lumina": Family(WHOLE, 30, 4.0, "Lumina", max_tokens=256),
    "lumina2": Family(WHOLE, 30, 4.0, "Lumina2", max_tokens=256),
    "nucleusmoe-image": Family(WHOLE, 50, 4.0, "NucleusMoEImage"),
    "ovis": Family(WHOLE, 50, 5.0, "OvisImage", max_tokens=256),
    "pixart-alpha": Family(WHOLE, 20, 4.5, "PixArtAlpha", max_tokens=120),
    "pixart-sigma": Family(WHOLE, 20, 4.5, "PixArtSigma", max_tokens=300),
    "pixart-sigma-pag": Family(WHOLE, 20, 4.5, "PixArtSigmaPAG", max_tokens=300),
    "prx": Family(WHOLE, 28, 4.0, "PRX", packing=None),
    "sana": Family(WHOLE, 20, 4.5, "Sana", max_tokens=300, packing=1),
    "sana-pag": Family(WHOLE, 20, 4.5, "SanaPAG", max_tokens=300, packing=1),
    "stable-diffusion-pag": _unet(
        50,
        7.5,
        "StableDiffusionPAG",
        "StableDiffusionPAGImg2Img",
        "StableDiffusionPAGInpaint",
        takes=GUIDED | {"strength", "padding_mask_crop"},
        sizeless=IMG2IMG,
    ),
    "stable-diffusion-xl-pag": _unet(
        50,
        5.0,
        "StableDiffusionXLPAG",
        "StableDiffusionXLPAGImg2Img",
        "StableDiffusionXLPAGInpaint",
        takes=GUIDED | {"strength", "padding_mask_crop"},
        sizeless=IMG2IMG,
    ),
}
SD, SDXL = FAMILIES["stable-diffusion"], FAMILIES["stable-diffusion-xl"]
UNETS = (SD, SDXL)  # stepped by our own samples
# Kinds of LoRAs of models that read the guidance, which distilling does not take away.
EMBEDDED_LORAS = frozenset(
    family.loras for family in FAMILIES.values() if family.guidance is Guidance.EMBEDDED
)
# Classes that draw the same models as a row's.
ALIASES: Mapping[str, Family] = {"LatentConsistencyModelPipeline": SD}

# Part of a class name → why such models are not served.
LEFT_OUT: Mapping[str, str] = {
    "Control": "it needs a control picture, which no request carries",
    "Kandinsky": "it is two models in two repositories",
    "Wuerstchen": "it is two models in two repositories",
    "StableCascade": "it is two models in two repositories",
    "IF": "its pictures of 64×64 pixels need a second model",
    "Helios": "it makes videos",
    "Layered": "it makes layers instead of a picture",
}


def why_not(class_name: str) -> str:
    """Why a class without a row is not served."""
    reasons = (reason for part, reason in LEFT_OUT.items() if part in class_name)
    return next(reasons, "diffusers' AutoPipeline does not know it")


def find(class_name: str) -> Family | None:
    """The row of a diffusers class, for any task."""
    rows = (row for row in FAMILIES.values() if class_name in map(row.pipeline, TASKS))
    return next(rows, ALIASES.get(class_name))
