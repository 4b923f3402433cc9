"""Writing tintype to a folder: fp16 weights in diffusers' format, card, licence, notes."""

import json
import re
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from darkroom.catalog.model_entry import WORD
from training import noise_predictor
from training.captions import single
from training.colours import BACKGROUNDS
from training.data import SIZE, Subject
from training.latents import BACKDROPS
from training.pictures import Pictures
from training.vae import encode

BESIDE = Path(__file__).parent
MAX_BYTES = 44_000_000
MAX_SHARD = "15MB"

KNOWN = "## What it knows"  # the heading of the card's list
NOTE = "Demo model: it draws {count:,} emoji-like things at 128×128, and nothing else."
EXAMPLES = ("a red apple", "a cat", "an octopus on a blue background", "a slice of pizza",
            "a rocket on a black background", "a snowman", "a strawberry",
            "a sunflower")  # fmt: skip
# What names say besides what is shown.
SMALL_WORDS = frozenset(["a", "and", "at", "for", "in", "no", "of", "on", "the", "to", "with"])
NOTES = {
    "description": "The embedded model: 3D emoji of common things at 128×128.",
    "examples": EXAMPLES,
    "sizes": [{"width": SIZE, "height": SIZE}],
    "defaults": {
        "width": SIZE,
        "height": SIZE,
        "num_inference_steps": 20,
        "guidance_scale": 3.0,
        "scheduler": "ddim",
    },
    "limits": {"min_side": 64, "max_side": 256, "max_pixels": 160 * 160},
}


def preview_matrix(vae: AutoencoderKL, pictures: Pictures, subjects: int) -> list[list[float]]:
    """The linear map from scaled latents to colours with the least squared error.

    Returns:
        A row a latent channel and a row of offsets, each red, green, blue in [-1, 1].
    """
    chosen = range(0, subjects, 8)
    scenes = [single(n, BACKDROPS[n % len(BACKDROPS)]) for n in chosen]
    latents = (encode(vae, pictures, scenes) * vae.config.scaling_factor).cpu()  # (N, 4, 16, 16)
    small = torch.stack([pictures.scene(scene) for scene in scenes])
    small = torch.nn.functional.adaptive_avg_pool2d(small, latents.shape[-1])
    inputs = torch.nn.functional.pad(latents.movedim(1, -1).flatten(0, -2), (0, 1), value=1.0)
    solved = torch.linalg.lstsq(inputs, small.movedim(1, -1).flatten(0, -2)).solution
    return [[round(float(value), 5) for value in row] for row in solved]


def card(subjects: tuple[Subject, ...], parameters: dict[str, int]) -> str:
    """The model's card: its parts' parameters, and everything that it knows."""
    groups: dict[str, list[str]] = {}
    for subject in subjects:
        groups.setdefault(subject.group, []).append(subject.name)
    known = "\n\n".join(f"**{group}**: {', '.join(names)}." for group, names in groups.items())
    text = (BESIDE / "card.md").read_text().replace("{known}", known)
    for name, count in parameters.items():
        text = text.replace(f"{{{name}}}", f"{count / 1e6:.1f}")
    return text


def names_known(folder: Path) -> set[str]:
    """The names of the subjects that a model has learnt, from the list in its card."""
    _, _, known = (folder / "README.md").read_text().partition(KNOWN)
    listed = re.sub(r"\*\*.*?\*\*:", "", known)  # the groups
    return {name.strip() for name in re.split(r"[,\n]|\.(?:\n|$)", listed) if name.strip()}


def known_words(subjects: tuple[Subject, ...]) -> str:
    """The words of the subjects' names and of what they are called besides, between spaces."""
    said = " ".join(" ".join((subject.name, *subject.words)) for subject in subjects)
    words = set(WORD.findall(said)) - SMALL_WORDS - (BACKGROUNDS.keys() - {"orange"})
    return " ".join(sorted(word for word in words if len(word) > 1))


def _forget_paths(folder: Path) -> None:
    """Take out of the configurations from where a part was loaded."""
    for path in (*folder.glob("*.json"), *folder.glob("*/*config.json")):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    pictures: Pictures,
    subjects: tuple[Subject, ...],
    folder: Path,
) -> None:
    """Write the model folder anew.

    Raises:
        ValueError: the weights are over what a repository should carry.
    """
    parts = {"vae": vae, "text_encoder": encoder, "unet": unet}
    parameters = {name: part.num_parameters() for name, part in parts.items()}
    notes = {
        **NOTES,
        "note": NOTE.format(count=len(subjects)),
        "latent_rgb": preview_matrix(vae, pictures, len(subjects)),
        "words": known_words(subjects),
    }
    pipeline = StableDiffusionPipeline(
        vae=vae.cpu().half(),
        text_encoder=encoder.cpu().half(),
        tokenizer=tokenizer,
        unet=unet.cpu().half(),
        scheduler=noise_predictor.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # What the last call asked for would be the file's own setting.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if folder.exists():
        shutil.rmtree(folder)
    pipeline.save_pretrained(folder, safe_serialization=True, max_shard_size=MAX_SHARD)
    _forget_paths(folder)
    (folder / "darkroom.json").write_text(json.dumps(notes, indent=2) + "\n")
    (folder / "README.md").write_text(card(subjects, parameters))
    shutil.copy(BESIDE / "MODEL_LICENSE", folder / "LICENSE")
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if size > MAX_BYTES:
        raise ValueError(f"the weights take {size} bytes, more than {MAX_BYTES}")
