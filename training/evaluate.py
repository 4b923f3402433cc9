"""How well tintype draws: a contact sheet for eyes, and a number.

The number is retrieval: of all subjects' true pictures on the same background, how often is the
one that was asked for the nearest to what was drawn? Distances are L1 between 32×32 thumbnails.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tqdm import tqdm

from training.data import BACKGROUNDS, Subject, article, compose

SEED = 7
SHEET_COLUMNS = 12
RETRIEVED = 60  # subjects drawn for the number
SHEET = ("red fox", "cat", "dog face", "penguin", "pizza", "red apple", "strawberry", "house",
         "red heart", "rocket", "sunflower", "evergreen tree", "automobile", "guitar", "robot",
         "ghost", "octopus", "butterfly", "banana", "hamburger", "birthday cake", "umbrella",
         "snowman", "crown")  # fmt: skip


def draw(pipeline: StableDiffusionPipeline, prompt: str, seed: int = SEED) -> Image.Image:
    """One picture with the model's defaults."""
    generator = torch.Generator().manual_seed(seed)
    picture: Image.Image = pipeline(
        prompt, num_inference_steps=20, guidance_scale=3.0, generator=generator
    ).images[0]
    return picture


def thumbnail(picture: Image.Image) -> np.ndarray:
    small = picture.convert("RGB").resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def report(folder: Path, subjects: tuple[Subject, ...], out: Path) -> dict[str, float]:
    """Write `sheet.png` and `report.json` to `out`; return the report."""
    out.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)

    size = pipeline.unet.config.sample_size * 8
    rows = -(-len(SHEET) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * size, rows * size))
    for place, noun in enumerate(SHEET):
        row, column = divmod(place, SHEET_COLUMNS)
        sheet.paste(draw(pipeline, article(noun)), (column * size, row * size))
    sheet.save(out / "sheet.png")

    truth = np.stack([thumbnail(compose(s.rgba(), BACKGROUNDS["white"])) for s in subjects])
    asked = random.Random(SEED).sample(range(len(subjects)), min(RETRIEVED, len(subjects)))
    ranks = []
    for which in tqdm(asked, "evaluation", mininterval=5):
        prompt = f"{article(subjects[which].name)} on a white background"
        distances = np.abs(truth - thumbnail(draw(pipeline, prompt))).mean(axis=(1, 2, 3))
        ranks.append(int((distances < distances[which]).sum()))
    result = {
        "subjects": float(len(subjects)),
        "drawn": float(len(asked)),
        "nearest_is_right": float(np.mean([rank == 0 for rank in ranks])),
        "among_nearest_five": float(np.mean([rank < 5 for rank in ranks])),
    }
    (out / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    return result
