"""The arrays of txt2img, img2img and inpaint, as stock diffusers passes them on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from torch import Tensor

from inside.model import BACKGROUND, GUIDANCE, PROMPT, SEED, STEPS, SUBJECT, Model
from training.pictures import to_image

Arrow = tuple[str, str, str]  # what works, what it is given, what it gives


def flows(model: Model) -> dict[str, list[Arrow]]:
    """What each part of the model is given and gives, in the order of its first call, by task."""
    picture = to_image(model.scene(SUBJECT, BACKGROUND))
    mask = to_image(model.alpha(SUBJECT).expand(3, -1, -1) * 2 - 1).convert("L")
    parts = model.pipeline.components
    pipelines: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "txt2img": (model.pipeline, {}),
        "img2img": (StableDiffusionImg2ImgPipeline(**parts), {"image": picture, "strength": 0.6}),
        "inpaint": (
            StableDiffusionInpaintPipeline(**parts),
            {"image": picture, "mask_image": mask, "strength": 1.0, "height": 128, "width": 128},
        ),
    }
    found = {}
    for task, (pipeline, pictures) in pipelines.items():
        pipeline.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(SEED)
        with _watched(model) as arrows:
            pipeline(
                PROMPT,
                guidance_scale=GUIDANCE,
                num_inference_steps=STEPS,
                generator=generator,
                **pictures,
            )
        found[task] = list(dict.fromkeys(arrows))
    return found


@contextmanager
def _watched(model: Model) -> Iterator[list[Arrow]]:
    """Context that lists the calls of the model's networks."""
    arrows: list[Arrow] = []
    watched = {
        "text encoder": model.pipeline.text_encoder,
        "VAE encoder": model.vae.encoder,
        "noise predictor": model.unet,
        "VAE decoder": model.vae.decoder,
    }
    with ExitStack() as hooks:
        for name, network in watched.items():

            def look(
                _: Any, args: tuple[Any, ...], given: dict[str, Any], output: Any, name: str = name
            ) -> None:
                inputs = [shape(one) for one in (*args, *given.values()) if has_shape(one)]
                result = output if isinstance(output, Tensor) else output[0]
                arrows.append((name, " and ".join(inputs), shape(result)))

            hooks.callback(network.register_forward_hook(look, with_kwargs=True).remove)
        yield arrows


def has_shape(value: object) -> bool:
    """Whether a value is an array, and no single number."""
    return isinstance(value, Tensor) and value.ndim > 0


def shape(value: Tensor) -> str:
    """Such as "2×4×16×16"."""
    return "×".join(map(str, value.shape))
