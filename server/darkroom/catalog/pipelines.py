"""The diffusers pipelines that run unbatched, from noise to picture, outside our sampling loop.

The rows are those of diffusers' AutoPipeline (`diffusers.pipelines.auto_pipeline`), copied because
importing diffusers is too slow for the web process; a test compares the two. Pipelines are left out
if they need an input that requests do not have, or a second repository, or do not make one picture:
see `LEFT_OUT`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.requests import MODEL_TASKS, Task


@dataclass(frozen=True)
class UnbatchedPipeline:
    """One kind of model: its class for each task, and the defaults of its `__call__`.

    Attributes:
        steps: num_inference_steps.
        guidance: guidance_scale, or true_cfg_scale where that is the name.
        txt2img: class name without `Pipeline`; None if diffusers has none for the task.
    """

    steps: int
    guidance: float
    txt2img: str | None
    img2img: str | None = None
    inpaint: str | None = None

    def pipeline(self, task: Task) -> str | None:
        """Class name in diffusers for the task."""
        name = getattr(self, task)
        return None if name is None else f"{name}Pipeline"

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task for task in MODEL_TASKS if self.pipeline(task) is not None)


UNBATCHED: Mapping[str, UnbatchedPipeline] = {
    "stable-diffusion-3": UnbatchedPipeline(
        28, 7.0, "StableDiffusion3", "StableDiffusion3Img2Img", "StableDiffusion3Inpaint"
    ),
    "stable-diffusion-3-pag": UnbatchedPipeline(
        28, 7.0, "StableDiffusion3PAG", "StableDiffusion3PAGImg2Img"
    ),
    "hunyuan": UnbatchedPipeline(50, 5.0, "HunyuanDiT"),
    "hunyuan-pag": UnbatchedPipeline(50, 5.0, "HunyuanDiTPAG"),
    "kandinsky3": UnbatchedPipeline(25, 3.0, "Kandinsky3", "Kandinsky3Img2Img"),
    "pixart-alpha": UnbatchedPipeline(20, 4.5, "PixArtAlpha"),
    "pixart-sigma": UnbatchedPipeline(20, 4.5, "PixArtSigma"),
    "sana": UnbatchedPipeline(20, 4.5, "Sana"),
    "sana-pag": UnbatchedPipeline(20, 4.5, "SanaPAG"),
    "stable-diffusion-pag": UnbatchedPipeline(
        50, 7.5, "StableDiffusionPAG", "StableDiffusionPAGImg2Img", "StableDiffusionPAGInpaint"
    ),
    "stable-diffusion-xl-pag": UnbatchedPipeline(
        50,
        5.0,
        "StableDiffusionXLPAG",
        "StableDiffusionXLPAGImg2Img",
        "StableDiffusionXLPAGInpaint",
    ),
    "pixart-sigma-pag": UnbatchedPipeline(20, 4.5, "PixArtSigmaPAG"),
    "auraflow": UnbatchedPipeline(50, 3.5, "AuraFlow"),
    "flux": UnbatchedPipeline(28, 3.5, "Flux", "FluxImg2Img", "FluxInpaint"),
    "flux-kontext": UnbatchedPipeline(28, 3.5, "FluxKontext", "FluxKontext"),
    "flux2-klein": UnbatchedPipeline(50, 4.0, "Flux2Klein", "Flux2Klein"),
    "flux2": UnbatchedPipeline(50, 4.0, "Flux2", "Flux2"),
    "ideogram4": UnbatchedPipeline(48, 4.0, "Ideogram4"),
    "krea2": UnbatchedPipeline(28, 4.5, "Krea2"),
    "lumina": UnbatchedPipeline(30, 4.0, "Lumina"),
    "lumina2": UnbatchedPipeline(30, 4.0, "Lumina2"),
    "chroma": UnbatchedPipeline(35, 5.0, "Chroma"),
    "cogview3": UnbatchedPipeline(50, 5.0, "CogView3Plus"),
    "cogview4": UnbatchedPipeline(50, 5.0, "CogView4"),
    "glm_image": UnbatchedPipeline(50, 1.5, "GlmImage"),
    "nucleusmoe-image": UnbatchedPipeline(50, 4.0, "NucleusMoEImage"),
    "qwenimage": UnbatchedPipeline(50, 4.0, "QwenImage", "QwenImageImg2Img", "QwenImageInpaint"),
    "qwenimage21": UnbatchedPipeline(40, 1.0, "QwenImage21"),
    "z-image": UnbatchedPipeline(50, 5.0, "ZImage", "ZImageImg2Img", "ZImageInpaint"),
    "z-image-omni": UnbatchedPipeline(50, 5.0, "ZImageOmni"),
    "ovis": UnbatchedPipeline(50, 5.0, "OvisImage"),
    "prx": UnbatchedPipeline(28, 4.0, "PRX"),
    "qwenimage-edit": UnbatchedPipeline(50, 4.0, None, "QwenImageEdit", "QwenImageEditInpaint"),
    "qwenimage-edit-plus": UnbatchedPipeline(50, 4.0, None, "QwenImageEditPlus"),
    "kolors": UnbatchedPipeline(50, 5.0, "Kolors", "KolorsImg2Img"),
    "kolors-pag": UnbatchedPipeline(50, 5.0, "KolorsPAG"),
}

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


def find(class_name: str) -> UnbatchedPipeline | None:
    """The row of a diffusers class, for any task."""
    rows = (row for row in UNBATCHED.values() if class_name in map(row.pipeline, MODEL_TASKS))
    return next(rows, None)
