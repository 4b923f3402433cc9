"""What img2img and inpaint may begin from instead of their source's latents as they are.

Both are AUTOMATIC1111's: its `latent_upscale_modes` (`modules/shared_items.py`) and its fills of
masked content (`StableDiffusionProcessingImg2Img.init` in `modules/processing.py`).
"""

import torch
from diffusers.utils.torch_utils import randn_tensor

from darkroom.requests import LatentResize, MaskedContent


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
    """Latents with something else under the mask.

    The noise is drawn by a generator of its own, so that what is drawn afterwards stays the same
    whatever the content.

    Args:
        latents: (1, C, h, w), scaled for the UNet.
        mask: (1, 1, H, W) in pixels, 0 or 1; 1 is repainted.
        content: what is put there.
        seed: of the noise.
    """
    if content is MaskedContent.ORIGINAL:
        return latents
    hole = torch.nn.functional.interpolate(mask, latents.shape[-2:]).to(latents)
    kept = latents * (1 - hole)
    if content is MaskedContent.NOTHING:
        return kept
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = randn_tensor(
        latents.shape, generator=generator, device=latents.device, dtype=latents.dtype
    )
    filled: torch.Tensor = kept + hole * noise
    return filled
