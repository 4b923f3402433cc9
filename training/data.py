"""The data set: 3D emoji composited on flat colours, with captions.

Pictures are Microsoft's Fluent Emoji 3D (MIT), names come from `unicode-emoji-json` (MIT) and
synonyms from `emojilib` (MIT). All three are npm packages, fetched by name with pinned versions.
"""

import colorsys
import json
import random
import subprocess
import tarfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGES = {
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "unicode-emoji-json": "0.9.0",
    "emojilib": "4.0.3",
}
SIZE = 128  # pixels a side of a training picture

BACKGROUNDS = {
    "white": (246, 246, 244),
    "black": (28, 28, 32),
    "grey": (150, 152, 158),
    "red": (206, 66, 66),
    "orange": (240, 150, 60),
    "yellow": (246, 214, 90),
    "green": (92, 170, 104),
    "blue": (84, 140, 214),
    "purple": (142, 100, 190),
    "pink": (244, 176, 196),
}

WHOLE_GROUPS = ("Animals & Nature", "Food & Drink")
NOUNS = Path(__file__).with_name("nouns.txt")
COMMON = Path(__file__).with_name("common.txt")
COMMON_WEIGHT = 8.0  # how much oftener what people ask for first is shown
MAX_SUBJECTS_PER_WORD = 4  # a word that fits more things than this names none of them
MAX_KEYWORDS = 3  # per subject: emojilib puts the telling ones first


@dataclass(frozen=True)
class Subject:
    """One thing tintype learns to draw.

    Attributes:
        name: what a person calls it, lower case.
        synonyms: other words that single it out.
        colours: words for its main colour, possibly none.
        path: the RGBA picture, 256×256.
        weight: how often it is shown, relative to others.
    """

    name: str
    synonyms: tuple[str, ...]
    colours: tuple[str, ...]
    path: Path
    weight: float = 1.0

    def rgba(self) -> Image.Image:
        return Image.open(self.path).convert("RGBA")


def fetch(root: Path) -> None:
    """Bring the packages under `root`; a second call finds them there."""
    root.mkdir(parents=True, exist_ok=True)
    for name, version in PACKAGES.items():
        target = root / name.rsplit("/", 1)[-1]
        if target.exists():
            continue
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}", "--pack-destination", str(root)],
            check=True,
            capture_output=True,
            text=True,
        )
        archive = root / packed.stdout.split()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()


def main_colours(picture: Image.Image) -> tuple[str, ...]:
    """Words for the hue that covers most of a picture's opaque part."""
    pixels = np.asarray(picture.resize((32, 32)), dtype=np.float32) / 255  # (32, 32, 4)
    opaque = pixels[pixels[..., 3] > 0.5][:, :3]
    words: Counter[str] = Counter()
    for r, g, b in opaque:
        hue, saturation, value = colorsys.rgb_to_hsv(float(r), float(g), float(b))
        if value < 0.25:
            words["black"] += 1
        elif saturation < 0.15:
            words["white" if value > 0.8 else "grey"] += 1
        elif hue < 0.025 or hue > 0.95:
            words["red"] += 1
        elif hue < 0.105:
            words["brown" if value < 0.65 else "orange"] += 1
        elif hue < 0.19:
            words["yellow"] += 1
        elif hue < 0.45:
            words["green"] += 1
        elif hue < 0.7:
            words["blue"] += 1
        elif hue < 0.82:
            words["purple"] += 1
        else:
            words["pink"] += 1
    if not words:
        return ()
    word, count = words.most_common(1)[0]
    if count < 0.35 * len(opaque):
        return ()
    return (word, "red") if word == "orange" else (word,)  # a fox is orange; people say red


@cache
def subjects(root: Path) -> tuple[Subject, ...]:
    """Everything tintype learns: two whole groups and the nouns listed in `nouns.txt`."""
    emoji = json.loads((root / "unicode-emoji-json/package/data-by-emoji.json").read_text())
    keywords = json.loads((root / "emojilib/package/dist/emoji-en-US.json").read_text())
    pictures = root / "fluent-emoji-3d/package/assets"
    listed = set(NOUNS.read_text().splitlines())
    common = {name.lower() for name in COMMON.read_text().splitlines()}

    chosen: list[tuple[str, Path, list[str]]] = []
    for char, entry in emoji.items():
        if entry["group"] not in WHOLE_GROUPS and entry["name"] not in listed:
            continue
        codes = "-".join(f"{ord(c):04x}" for c in char)
        for stem in (codes, codes.replace("-fe0f", "")):
            if (pictures / f"{stem}.webp").exists():
                words = [w.replace("_", " ") for w in keywords.get(char, [])]
                chosen.append((entry["name"].lower(), pictures / f"{stem}.webp", words))
                break

    names = {name for name, _, _ in chosen}
    in_names = Counter(word for name in names for word in set(name.split()))
    in_keywords = Counter(word for _, _, words in chosen for word in set(words))
    found = []
    for name, path, words in chosen:
        synonyms = []
        short = name.removesuffix(" face").split()[-1]  # "red apple" is an apple
        if short not in names and in_names[short] <= MAX_SUBJECTS_PER_WORD:
            synonyms.append(short)
        synonyms += [
            word
            for word in words
            if word.isascii()
            and word.isalpha()
            and word not in in_names
            and in_keywords[word] <= MAX_SUBJECTS_PER_WORD
        ][:MAX_KEYWORDS]
        with Image.open(path) as picture:
            colours = main_colours(picture.convert("RGBA"))
        weight = COMMON_WEIGHT if name in common else 1.0
        found.append(Subject(name, tuple(dict.fromkeys(synonyms)), colours, path, weight))
    return tuple(found)


def compose(
    rgba: Image.Image,
    background: tuple[int, int, int],
    *,
    scale: float = 0.86,
    offset: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
    size: int = SIZE,
) -> Image.Image:
    """Put a subject on a flat colour.

    Args:
        rgba: the subject with alpha.
        background: sRGB, 0–255.
        scale: the subject's side as a share of the picture's.
        offset: of the subject's centre from the picture's, as a share of its side.
        flip: mirror left to right.
        size: the picture's side in pixels.
    """
    side = round(size * scale)
    subject = rgba.resize((side, side), Image.Resampling.LANCZOS)
    if flip:
        subject = subject.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = Image.new("RGB", (size, size), background)
    left, top = (round((size - side) / 2 + shift * size) for shift in offset)
    picture.paste(subject, (left, top), subject)
    return picture


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def caption(subject: Subject, background: str, rng: random.Random) -> str:
    """One of the many things a person might type to get this picture."""
    noun = subject.name
    if subject.synonyms and rng.random() < 0.15:
        noun = rng.choice(subject.synonyms)
    if subject.colours and rng.random() < 0.25:
        colour = rng.choice(subject.colours)
        if colour not in noun.split():
            noun = f"{colour} {noun}"
    text = article(noun) if rng.random() < 0.7 else noun
    if rng.random() < 0.12:
        text = rng.choice(("a picture of ", "a photo of ", "an icon of ")) + text
    if rng.random() < 0.5:
        text += rng.choice(
            (f" on a {background} background", f", {background} background", f" on {background}")
        )
    return text


def draw(
    subjects: tuple[Subject, ...], count: int, rng: random.Random
) -> tuple[list[int], list[int], list[str]]:
    """Choose a batch, common subjects oftener.

    Returns:
        Positions in `subjects`, positions in `BACKGROUNDS`, and a caption for each.
    """
    backgrounds = list(BACKGROUNDS)
    weights = [subject.weight for subject in subjects]
    which = rng.choices(range(len(subjects)), weights, k=count)
    where = rng.choices(range(len(backgrounds)), k=count)
    captions = [
        caption(subjects[s], backgrounds[b], rng) for s, b in zip(which, where, strict=True)
    ]
    return which, where, captions
