"""What a picture says about its own making, in PNG text chunks.

`parameters` is the line other tools read; `darkroom` is the exact request. Neither holds an id or
a time, so that the same request and seed give the same file.
"""

import json

from darkroom.catalog import schedulers
from darkroom.requests import Img2Img, Inpaint, ResolvedRequest, Upscale


def text_chunks(
    request: ResolvedRequest, index: int, source_sha256: str | None, mask_sha256: str | None
) -> dict[str, str]:
    """The PNG text chunks of one image.

    Args:
        request: what was asked.
        index: of the image within the job.
        source_sha256: of the source picture's PNG, in place of its id.
        mask_sha256: of the mask's.
    """
    native = request.model_dump(mode="json", exclude_none=True)
    for name, digest in (("image", source_sha256), ("mask_image", mask_sha256)):
        if native.pop(name, None) is not None:
            native[f"{name}_sha256"] = digest
    native |= {"task": request.task.value, "index": index}
    return {
        "parameters": parameters(request, index),
        "darkroom": json.dumps(native, ensure_ascii=False, sort_keys=True),
    }


def parameters(request: ResolvedRequest, index: int) -> str:
    """The prompt and settings in the format of AUTOMATIC1111's web UI (its `infotext`)."""
    if isinstance(request, Upscale):
        name = _quoted(request.upscaler)
        return f"Postprocess upscale by: {request.scale:g}, Postprocess upscaler: {name}"
    settings: dict[str, object] = {"Steps": request.num_inference_steps}
    if request.scheduler != schedulers.NATIVE:
        entry, spacing = schedulers.find(request.scheduler)
        settings["Sampler"] = entry.title
        if spacing is not None:
            uniform = spacing == "sgm_uniform"
            settings["Schedule type"] = "SGM Uniform" if uniform else spacing.title()
    settings |= {
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": request.seed_of(index),
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
    }
    if isinstance(request, Img2Img | Inpaint):
        settings["Denoising strength"] = f"{request.strength:g}"
    if request.clip_skip:
        settings["Clip skip"] = request.clip_skip + 1  # A1111 counts the last layer as 1
    if isinstance(request, Inpaint) and request.mask_blur:
        settings["Mask blur"] = request.mask_blur
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in settings.items())
    negative = f"Negative prompt: {request.negative_prompt}\n" if request.negative_prompt else ""
    return f"{request.prompt}\n{negative}{line}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value
