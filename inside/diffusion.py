"""The forward process, from a picture to noise, and the reverse process, back."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from inside import figures
from inside.model import BACKGROUND, GUIDANCE, PROMPT, STEPS, SUBJECT, Model, parts

TIMES = (0, 100, 250, 400, 550, 700, 850, 999)
SHOWN = (0, 2, 4, 6, 9, 12, 15, 19)  # of the 20 steps


@dataclass(frozen=True)
class Step:
    """One step of the reverse process.

    Attributes:
        timestep: 999 down to 0.
        latents: what it was given, (1, 4, h, w).
        noise: the noise that the network found in them, guidance included.
        guess: what would be left without that noise.
    """

    timestep: int
    latents: Tensor
    noise: Tensor
    guess: Tensor


def noised(model: Model, latents: Tensor, timestep: int) -> Tensor:
    """Latents with the noise of a timestep: signal × latents + noise × N(0, 1)."""
    signal, noise = parts(model.scheduler(), timestep)
    return signal * latents + noise * model.noise()


def forward(model: Model) -> Image.Image:
    """One picture from clean to pure noise, in pixels and in latents."""
    clean = model.encode(model.scene(SUBJECT, BACKGROUND))
    strip = []
    for timestep in TIMES:
        signal, noise = parts(model.scheduler(), timestep)
        decoded = model.decode(noised(model, clean, timestep))
        text = f"t = {timestep}\nsignal {signal:.3f}\nnoise {noise:.3f}"
        strip.append((figures.picture(decoded), text))
    return figures.rows([strip])


def steps(
    model: Model,
    prompt: str = PROMPT,
    *,
    guidance: float = GUIDANCE,
    start: Tensor | None = None,
    strength: float = 1.0,
) -> tuple[list[Step], Tensor]:
    """The reverse process by DDIM, and the latents at its end.

    Args:
        model: whose noise predictor and text encoder are asked.
        prompt: what to draw.
        guidance: how much more of what the words add to the noise is taken away; 1: no more.
        start: latents to begin with, or None for pure noise.
        strength: with `start`, which share of the steps is made, from noise of the first of them.
    """
    scheduler = model.scheduler(STEPS)
    times = scheduler.timesteps[STEPS - round(STEPS * strength) :]
    words = torch.cat([model.embed(""), model.embed(prompt)])
    latents = model.noise() if start is None else noised(model, start, int(times[0]))
    done = []
    for timestep in times:
        twice = torch.cat([latents, latents])
        without, told = model.unet(twice, timestep, words).sample.chunk(2)
        velocity = without + guidance * (told - without)
        signal, noise = parts(scheduler, int(timestep))
        # The network predicts v = signal × noise − noise's factor × picture (arXiv 2202.00512 §D).
        found = signal * velocity + noise * latents
        guess = signal * latents - noise * velocity
        done.append(Step(int(timestep), latents, found, guess))
        latents = scheduler.step(velocity, timestep, latents).prev_sample
    return done, latents


def reverse(model: Model) -> Image.Image:
    """What the network is given, the noise it finds there, and the picture it guesses, by step."""
    done, latents = steps(model)
    given, found, guessed = [], [], []
    for number in SHOWN:
        step = done[number]
        given.append((figures.picture(model.decode(step.latents)), f"step {number + 1}: given"))
        found.append((figures.numbers(step.noise[0, 0], -2.5, 2.5), "noise found"))
        guessed.append((figures.picture(model.decode(step.guess)), "guess"))
    end = [(figures.picture(model.decode(latents)), "after the last step")]
    return figures.rows([given, found, guessed, end])
