"""The demo model in its parts, as stock diffusers loads it."""

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel

from training import data
from training.captions import Scene, Thing
from training.data import TINTYPE
from training.pictures import Pictures

SUBJECT, BACKGROUND = "fox", "blue"
PROMPT = f"a {SUBJECT} on a {BACKGROUND} background"
SEED, STEPS, GUIDANCE = 7, 20, 3.0


class Model:
    """tintype: autoencoder, text encoder, noise predictor and scheduler."""

    def __init__(self) -> None:
        self.pipeline = StableDiffusionPipeline.from_pretrained(
            TINTYPE, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        self.pipeline.set_progress_bar_config(disable=True)
        # Only this implementation of attention hands out its weights.
        self.text_encoder = CLIPTextModel.from_pretrained(
            TINTYPE / "text_encoder", dtype=torch.float32, attn_implementation="eager"
        )
        self.vae, self.unet = self.pipeline.vae, self.pipeline.unet
        self.tokenizer = self.pipeline.tokenizer
        self._data = data.load()
        self._pictures = Pictures(self._data)

    def scheduler(self, steps: int | None = None) -> DDIMScheduler:
        """A new one, with timesteps if `steps` is given."""
        made = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        if steps is not None:
            made.set_timesteps(steps)
        return made

    def scene(self, name: str, background: str) -> Tensor:
        """A subject of the data set on a colour: (3, 128, 128) in [-1, 1]."""
        return self._pictures.scene(Scene((self._thing(name),), (background,)))

    def alpha(self, name: str) -> Tensor:
        """Where a subject is in its scene: (128, 128) in [0, 1]."""
        return self._pictures.alpha(self._thing(name))[0]

    def _thing(self, name: str) -> Thing:
        (subject,) = (n for n, one in enumerate(self._data.subjects) if one.name == name)
        return Thing(subject)

    def encode(self, picture: Tensor) -> Tensor:
        """Latents of a picture of (3, H, W): (1, 4, H/8, W/8), scaled to a variance of about 1."""
        found = self.vae.encode(picture[None]).latent_dist.mode()
        return found * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """The picture of latents of (1, 4, h, w): (3, 8h, 8w) in about [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample[0]

    def tokens(self, prompt: str) -> Tensor:
        """Token ids, padded: (1, 77)."""
        return self.tokenizer(
            prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids

    def embed(self, prompt: str) -> Tensor:
        """What the noise predictor is told of a prompt: (1, 77, 192)."""
        return self.text_encoder(self.tokens(prompt)).last_hidden_state

    def noise(self) -> Tensor:
        """The noise of a picture of 128×128 with the seed: (1, 4, 16, 16)."""
        return torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(SEED))


def parts(scheduler: DDIMScheduler, timestep: int) -> tuple[float, float]:
    """How much of latents is signal and how much is noise at a timestep: their factors."""
    kept = float(scheduler.alphas_cumprod[timestep])
    return kept**0.5, (1 - kept) ** 0.5
