"""What the text encoder makes of a prompt, and where the noise predictor looks for each word."""

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from darkroom.engine.attention_maps import CrossAttention, carried_back, rollout
from inside import diffusion, figures
from inside.model import PROMPT, SUBJECT, Model
from training.captions import article

NOISED = (600, 400, 200)  # timesteps at which maps are compared with where the subject is
SCENES = (
    ("fox", "blue"),
    ("penguin", "yellow"),
    ("pizza", "green"),
    ("rocket", "black"),
    ("cat", "purple"),
    ("house", "pink"),
    ("banana", "grey"),
    ("guitar", "white"),
    ("octopus", "orange"),
    ("cactus", "red"),
)


def said(model: Model, prompt: str) -> list[str]:
    """Each token of a prompt that is not padding, as text."""
    ids = model.tokens(prompt)[0]
    end = int((ids == model.tokenizer.eos_token_id).nonzero()[0])
    return [model.tokenizer.decode([int(one)]) for one in ids[: end + 1]]


def embeddings(model: Model) -> Image.Image:
    """How alike the 77 embeddings are (cosine): of no words, of one word, of the prompt."""
    shown = []
    for prompt in ("", SUBJECT, PROMPT):
        vectors = functional.normalize(model.embed(prompt)[0], dim=-1)
        shown.append((figures.numbers(vectors @ vectors.T, 0, 1), f'"{prompt}"'))
    return figures.rows([shown])


def shares(model: Model, prompt: str) -> Tensor:
    """How much each of a prompt's 77 embeddings has from each of its tokens: (1, 77, 77)."""
    attentions = model.text_encoder(model.tokens(prompt), output_attentions=True).attentions
    return rollout(attentions)


def seen(model: Model, latents: Tensor, timestep: int | Tensor, prompt: str) -> Tensor:
    """Where the network looks for each embedding in one call: (1, 77, h, w)."""
    attention = CrossAttention(model.unet, latents.shape[-2:])
    with attention.watched():
        model.unet(latents, timestep, model.embed(prompt))
    return attention.take()


def drawn_and_seen(model: Model) -> tuple[Tensor, Tensor]:
    """The prompt's picture, and its maps summed over all steps: (3, H, W) and (1, 77, h, w)."""
    steps, latents = diffusion.steps(model)
    maps = [seen(model, one.latents, one.timestep, PROMPT) for one in steps]
    return model.decode(latents), torch.stack(maps).sum(0)


def looked_at(model: Model) -> Image.Image:
    """Maps of the prompt's words, over all steps: by their own embeddings, and carried back."""
    drawn, maps = drawn_and_seen(model)
    back = carried_back(maps, shares(model, PROMPT))
    lines = []
    for which, name in ((maps, "own embedding"), (back, "carried back")):
        line = [(figures.picture(drawn), name)]
        for position, word in enumerate(said(model, PROMPT)):
            line.append((figures.lit(drawn, which[0, position]), word))
        lines.append(line)
    return figures.rows(lines)


def positions(model: Model) -> Image.Image:
    """Maps of the last 64 embeddings, whose places in the row are the places in the picture."""
    drawn, maps = drawn_and_seen(model)
    chosen = [13 + 8 * row + column for row in (1, 3, 6) for column in (1, 6)]
    line = [(figures.picture(drawn), "the picture")]
    line += [(figures.lit(drawn, maps[0, one]), f"embedding {one}") for one in chosen]
    return figures.rows([line])


def area(inside: Tensor, outside: Tensor) -> float:
    """The chance that a number of `inside` is greater than one of `outside`: 0.5 tells nothing.

    It is the area under the ROC curve (AUC); equal numbers count one half.
    """
    difference = inside[:, None] - outside[None, :]
    return float(((difference.sign() + 1) / 2).mean())


def told_apart(model: Model) -> list[tuple[str, float, float, float]]:
    """How well maps tell a subject from its background: the AUC for each prompt of `SCENES`.

    Of the subject's word by its own embedding, of that word carried back, and of the colour's word
    carried back, which should be where the subject is not. The network sees the data set's own
    picture with noise. A cell is the subject's if that covers more than a half of it.
    """
    found = []
    for name, background in SCENES:
        prompt = f"{article(name)} on {article(background)} background"
        latents = model.encode(model.scene(name, background))
        maps = torch.stack(
            [seen(model, diffusion.noised(model, latents, t), t, prompt) for t in NOISED]
        ).sum(0)
        back = carried_back(maps, shares(model, prompt))
        tokens = [text.strip() for text in said(model, prompt)]
        subject, colour = tokens.index(name), tokens.index(background)
        alpha = model.alpha(name)[None, None]
        covered = functional.adaptive_avg_pool2d(alpha, maps.shape[-2:])[0, 0] > 0.5
        chosen = (maps[0, subject], back[0, subject], back[0, colour])
        found.append((prompt, *(area(one[covered], one[~covered]) for one in chosen)))
    return found
