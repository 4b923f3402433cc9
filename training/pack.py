"""Writes `pictures.zip`, the data set that training reads: `python -m training --pack`.

Pictures are Microsoft's Fluent Emoji 3D (MIT), names come from `unicode-emoji-json` (MIT) and
synonyms from `emojilib` (MIT): npm packages, fetched by name with pinned versions. Photographs are
the public-domain ones that scikit-image contains.
"""

import io
import json
import subprocess
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training import colours
from training.data import HELD_OUT, INDEX, LARGER, PACK, PHOTOGRAPH, SIDE, SMALL, THINGS, lines

PACKAGES = {
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "unicode-emoji-json": "0.9.0",
    "emojilib": "4.0.3",
}
PHOTOGRAPHS = ("astronaut", "coffee", "rocket", "grass", "gravel", "brick", "hubble_deep_field")
PHOTOGRAPH_SIDE = 512  # pixels, of the shorter side
LARGE = 240  # pictures of common things are there in their full size too, for the upscalers
UNSEEN = 24  # of others, which the upscalers are measured with
MAX_BYTES = 8_000_000
QUALITY = 85  # of WebP; the pictures are 3D renderings without grain
FLAGS = ("chequered flag", "triangular flag", "crossed flags", "black flag", "white flag",
         "rainbow flag", "pirate flag")  # fmt: skip

UNWANTED = ("butt", "molester", "cute")

Entry = tuple[str, str, Path, list[str]]  # name, group, picture, keywords

LANCZOS = Image.Resampling.LANCZOS
COMMON_WEIGHT = 4.0  # how much oftener what people ask for first is shown
MAX_FITTING = 1  # a keyword that fits more pictures than this singles out none of them
MAX_NAMED = 4  # a last word that is in more names than this stands for none of them
MAX_KEYWORDS = 2  # of a picture: emojilib lists the telling ones first


def fetch(folder: Path) -> None:
    """Bring the packages into a folder; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in PACKAGES.items():
        target = folder / name.rsplit("/", 1)[-1]
        if target.exists():
            continue
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}", "--pack-destination", str(folder)],
            check=True,
            capture_output=True,
            text=True,
        )
        archive = folder / packed.stdout.split()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()


def chosen(folder: Path) -> Iterator[Entry]:
    """Name, group, picture and keywords of each emoji that a person would ask for.

    One skin tone, no flags of countries, nothing of `left_out.txt`.
    """
    emoji = json.loads((folder / "unicode-emoji-json/package/data-by-emoji.json").read_text())
    keywords = json.loads((folder / "emojilib/package/dist/emoji-en-US.json").read_text())
    pictures = folder / "fluent-emoji-3d/package/assets"
    left_out = set(lines("left_out.txt"))
    for character, entry in emoji.items():
        if entry["name"] in left_out or (entry["group"] == "Flags" and entry["name"] not in FLAGS):
            continue
        codes = "-".join(f"{ord(c):04x}" for c in character)
        for stem in (codes, codes.replace("-fe0f", "")):
            path = pictures / f"{stem}.webp"
            if path.exists():
                words = [word.replace("_", " ").lower() for word in keywords.get(character, [])]
                yield plain(entry["name"]), entry["group"], path, words
                break


def plain(name: str) -> str:
    """A name as a person types it: lower case, straight apostrophes, no comma."""
    return name.lower().replace("’", "'").replace("“", "").replace("”", "").replace(",", "")


def own_words() -> dict[str, list[str]]:
    """Words by name, from `words.txt`."""
    found: dict[str, list[str]] = {}
    for line in lines("words.txt"):
        if line and not line.startswith("#"):
            name, words = line.split(":")
            found.setdefault(plain(name), []).extend(word.strip() for word in words.split(","))
    return found


def frequent() -> set[str]:
    """Names of what people ask for first, from `common.txt`."""
    return {plain(name) for name in lines("common.txt")}


def index(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What `pictures.zip` says about each picture: name, group, words, weight, colours.

    Raises:
        ValueError: `words.txt` names something that is no picture.
    """
    names = {name for name, *_ in entries}
    own = own_words()
    if unknown := own.keys() - names:
        raise ValueError(f"words.txt names no picture: {sorted(unknown)}")
    taken = Counter([*names, *(word for words in own.values() for word in words)])
    in_names = Counter(word for name in names for word in set(name.split()))
    fitting = Counter(word for *_, words in entries for word in set(words))
    common = frequent()
    found = []
    for name, group, path, keywords in entries:
        words = list(own.get(name, []))
        if group in THINGS:
            short = name.removesuffix(" face").split()[-1]  # "green salad" is a salad
            if in_names[short] <= MAX_NAMED:
                words.append(short)
            telling = [
                w
                for w in keywords
                if w.isascii() and w.isalpha() and not in_names[w] and w not in UNWANTED
            ]
            words += [w for w in telling if fitting[w] <= MAX_FITTING][:MAX_KEYWORDS]
        words = [w for w in dict.fromkeys(words) if w in own.get(name, []) or not taken[w]]
        with Image.open(path) as picture:
            main = colours.main_colours(picture.convert("RGBA"))
        weight = COMMON_WEIGHT if name in common or name in own else 1.0
        found.append(
            {"name": name, "group": group, "words": words, "weight": weight, "colours": main}
        )
    return found


def held_out(entries: Sequence[Entry]) -> list[Path]:
    """Pictures from all groups that are in the data set in their small size alone."""
    others = [path for name, _, path, _ in entries if name not in frequent()]
    return others[:: len(others) // UNSEEN][:UNSEEN]


def photographs() -> Iterator[Image.Image]:
    import skimage.data  # for this command alone

    for name in PHOTOGRAPHS:
        picture = Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB")
        share = PHOTOGRAPH_SIDE / min(picture.size)
        size = round(picture.width * share), round(picture.height * share)
        yield picture.resize(size, LANCZOS)


def write(folder: Path, target: Path = PACK) -> None:
    """Write the data set. The same packages give the same bytes.

    Args:
        folder: for the packages.
        target: the file.

    Raises:
        ValueError: it is larger than a repository should carry.
    """
    fetch(folder)
    entries = list({entry[0]: entry for entry in chosen(folder)}.values())
    files = {INDEX: json.dumps(index(entries), indent=0, ensure_ascii=False).encode()}
    for number, (_, _, path, _) in enumerate(entries):
        with Image.open(path) as picture:
            full = picture.convert("RGBA")
        files[f"{SMALL}{number:04}.webp"] = encoded(full.resize((SIDE, SIDE), LANCZOS))
    common = [path for name, _, path, _ in entries if name in frequent()][:LARGE]
    for number, path in enumerate(common):
        with Image.open(path) as picture:
            files[f"{LARGER}{number:04}.webp"] = encoded(picture.convert("RGBA"))
    for number, photograph in enumerate(photographs()):
        files[f"{PHOTOGRAPH}{number}.webp"] = encoded(photograph)
    for number, path in enumerate(held_out(entries)):
        with Image.open(path) as picture:
            files[f"{HELD_OUT}{number:02}.webp"] = encoded(picture.convert("RGBA"))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in files.items():
            pack.writestr(zipfile.ZipInfo(name), data)
    size = target.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{target} takes {size} bytes, more than {MAX_BYTES}")


def encoded(picture: Image.Image) -> bytes:
    """A picture as WebP."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, alpha_quality=90, method=6)
    return out.getvalue()
