"""What a setting does to a picture: one value after another, all else the same."""

from PIL import Image

from inside import diffusion, figures
from inside.model import BACKGROUND, PROMPT, STEPS, SUBJECT, Model
from training.captions import article

GUIDANCES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
STRENGTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
WANTED = "cat"  # what the fox is changed into


def guidance(model: Model) -> Image.Image:
    """From what it draws without words (0) to more than the words alone say (over 1)."""
    strip = []
    for scale in GUIDANCES:
        _, latents = diffusion.steps(model, PROMPT, guidance=scale)
        strip.append((figures.picture(model.decode(latents)), f"guidance {scale:g}"))
    return figures.rows([strip])


def strength(model: Model) -> Image.Image:
    """A picture changed by other words, with more and more of it replaced by noise."""
    start = model.scene(SUBJECT, BACKGROUND)
    prompt = f"{article(WANTED)} on {article(BACKGROUND)} background"
    strip = [(figures.picture(start), "start")]
    for share in STRENGTHS:
        _, latents = diffusion.steps(model, prompt, start=model.encode(start), strength=share)
        text = f"strength {share:g}\n{round(STEPS * share)} of {STEPS} steps"
        strip.append((figures.picture(model.decode(latents)), text))
    return figures.rows([strip])
