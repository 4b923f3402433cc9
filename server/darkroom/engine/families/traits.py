"""What the engine knows of a family besides its pipeline: shared calls, and previews."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """One family.

    Attributes:
        batched: whether calls of several images may be made as one. The equality suite holds that
            for each family that says so.
        text: names of the denoiser's arguments for a text and its mask, where texts of different
            length may share a call.
        latents: whose latents it makes; a key of `previews.FACTORS`.
        flat: beginnings of the names of the denoiser's layers that see the tokens of all pictures
            in one row. Pictures with different LoRAs on these share no call.
        chat: whether its pipeline sends the prompt as a chat's first message.
    """

    batched: bool = True
    text: tuple[str, str] | None = None
    latents: str | None = None
    flat: tuple[str, ...] = ()
    chat: bool = False


ALONE = Traits(batched=False)
QWEN = Traits(text=("encoder_hidden_states", "encoder_hidden_states_mask"), latents="qwen")

TRAITS: Mapping[str, Traits] = {
    "auraflow": Traits(latents="sdxl"),
    "sd3": Traits(latents="sd3"),
    "flux": Traits(latents="flux"),
    "flux-kontext": Traits(latents="flux"),
    "flux2-klein": Traits(latents="flux2", chat=True),
    "flux2": Traits(latents="flux2"),
    "z-image": Traits(latents="flux", flat=("all_x_embedder.", "cap_embedder."), chat=True),
    "qwen-image": QWEN,
    "qwen-image-edit": QWEN,
    "qwen-image-edit-plus": QWEN,
}
