"""How well tintype draws: sheets for eyes, and numbers. `make evaluate`.

Every number is measured with the model's defaults, at 20 and at 4 steps, with fixed seeds. What is
drawn is compared with the data set's pictures by the mean difference of 32×32 thumbnails. Names to
draw are taken from those that the model's card lists.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from scipy import linalg
from tqdm import tqdm

from training import captions, data, export, text, upscaler, vae
from training.captions import Scene, article
from training.colours import BACKGROUNDS
from training.data import TINTYPE, lines
from training.pictures import Pictures, thumbnail, to_image, to_tensor
from training.upscaler import UPSCALERS

STEPS = (20, 4)
GUIDANCE = 3.0
TOGETHER = 25  # pictures a call
NAMES, SEEDS = 300, (7, 8)  # of the retrieval
FITTED = 512  # captions, to read the layout out of what the text encoder says
CODED = 48  # subjects that the autoencoder is measured with
COLOURS_NAMES = 30  # subjects drawn on each background
MEASURED = "## Measured by `make evaluate`"  # the heading of the card's figures
SHEET_COLUMNS, LABEL = 8, 14  # pixels of the text below a picture

SHEET = ("a red fox", "a cat", "a dog", "a penguin", "a slice of pizza", "a red apple",
         "a strawberry", "a house", "a heart", "a rocket", "a sunflower", "a tree", "a car",
         "a guitar", "a robot", "a ghost", "an octopus", "a butterfly", "a banana", "a hamburger",
         "a birthday cake", "an umbrella", "a snowman", "a crown", "a wizard", "a cup of coffee",
         "a crying cat", "two hearts", "a cat and a dog", "a blue car", "a happy face",
         "cute fox, digital art, highly detailed, 4k")  # fmt: skip


class Evaluation:
    """Measures a model folder.

    Args:
        folder: a diffusers folder.
        found: the data set.
    """

    def __init__(self, folder: Path, found: data.DataSet) -> None:
        self._pipeline = StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        if torch.cuda.is_available():
            self._pipeline.to("cuda")
        self._pipeline.set_progress_bar_config(disable=True)
        self._found = found
        self._pictures = Pictures(found)
        names = export.names_known(folder)
        self._known = [n for n, subject in enumerate(found.subjects) if subject.name in names]

    @property
    def known(self) -> int:
        """How many of the data set's subjects the model has learnt, as its card says."""
        return len(self._known)

    def draw(self, prompts: Sequence[str], steps: int, seed: int) -> torch.Tensor:
        """One picture a prompt, (N, 3, 128, 128) in [-1, 1]."""
        drawn = []
        for first in range(0, len(prompts), TOGETHER):
            part = list(prompts[first : first + TOGETHER])
            generators = [torch.Generator().manual_seed(seed) for _ in part]
            pictures = self._pipeline(
                part, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generators
            ).images
            drawn += [to_tensor(picture) for picture in pictures]
        return torch.stack(drawn)

    def sheet(self, prompts: Sequence[str], steps: int, path: Path) -> None:
        """Write a contact sheet."""
        side = data.SIZE
        drawn = self.draw(prompts, steps, SEEDS[0])
        rows = -(-len(prompts) // SHEET_COLUMNS)
        sheet = Image.new("RGB", (SHEET_COLUMNS * side, rows * (side + LABEL)), "white")
        pen = ImageDraw.Draw(sheet)
        for place, (prompt, picture) in enumerate(zip(prompts, drawn, strict=True)):
            row, column = divmod(place, SHEET_COLUMNS)
            left, top = column * side, row * (side + LABEL)
            sheet.paste(to_image(picture), (left, top))
            pen.text((left + 2, top + side + 1), prompt[:22], fill="black")
        sheet.save(path)

    def retrieval(self, steps: int) -> dict[str, Any]:
        """How often a subject's own picture is the nearest of all, or among the nearest five.

        "All" is the whole data set, also where the model knows a part of it.
        """
        subjects = self._found.subjects
        truth = self._thumbnails([captions.single(n, "white") for n in range(len(subjects))])
        asked = self._some(NAMES, SEEDS[0])
        prompts = [f"{article(subjects[n].name)} on a white background" for n in asked]
        ranks = []
        for seed in SEEDS:
            for number, picture in zip(asked, self.draw(prompts, steps, seed), strict=True):
                distances = _distances(picture, truth)
                ranks.append(int((distances < distances[number]).sum()))
        found = np.array(ranks).reshape(len(SEEDS), -1)  # (seeds, names)
        missed = [subjects[n].name for n, rank in zip(asked, found.min(0), strict=True) if rank > 4]
        return {
            "top_1": float((found == 0).mean()),
            "top_5": float((found < 5).mean()),
            "missed": sorted(missed),
        }

    def colours(self, steps: int) -> float:
        """How often the background that is named is the one that is drawn, by the corners."""
        names = list(BACKGROUNDS)
        chosen = self._some(COLOURS_NAMES, 1)
        asked = [(n, colour) for n in chosen for colour in names]
        prompts = [
            f"{article(self._found.subjects[n].name)} on a {colour} background"
            for n, colour in asked
        ]
        palette = torch.tensor(list(BACKGROUNDS.values())) / 127.5 - 1  # (10, 3)
        right = 0
        for (_, colour), picture in zip(asked, self.draw(prompts, steps, SEEDS[0]), strict=True):
            corners = picture[:, [2, 2, -3, -3], [2, -3, 2, -3]].median(dim=1).values
            nearest = int((palette - corners).square().sum(1).argmin())
            right += names[nearest] == colour
        return right / len(asked)

    def compositions(self, steps: int) -> dict[str, Any]:
        """How often both things of a held-out pair are drawn, each nearest in its half."""
        pairs = [line.split(" + ") for line in lines("held_out_pairs.txt")]
        prompts = [f"{article(left)} and {article(right)}" for left, right in pairs]
        drawn = self.draw(prompts, steps, SEEDS[0])
        half = drawn.shape[-1] // 2
        every = range(len(self._found.subjects))
        truth = self._thumbnails([captions.pair(n, n) for n in every])  # (N, 3, 32, 32)
        small, middle = thumbnail(drawn), half // 4
        drawn_right = []
        for names, picture in zip(pairs, small, strict=True):
            sides = (slice(None, middle), slice(middle, None))
            right = all(
                int((truth[..., side] - picture[..., side]).abs().mean((1, 2, 3)).argmin())
                == self._found.number(name)
                for name, side in zip(names, sides, strict=True)
            )
            if right:
                drawn_right.append(" + ".join(names))
        return {"share": len(drawn_right) / len(pairs), "drawn": drawn_right}

    def long_prompts(self, steps: int) -> dict[str, Any]:
        """How often a long pasted prompt's subject is among the nearest five."""
        wanted = [line.split(" | ") for line in lines("long_prompts.txt")]
        every = range(len(self._found.subjects))
        truth = self._thumbnails([captions.single(n) for n in every])
        drawn = self.draw([prompt for _, prompt in wanted], steps, SEEDS[0])
        missed = []
        for (name, _), picture in zip(wanted, drawn, strict=True):
            distances = _distances(picture, truth)
            if int((distances < distances[self._found.number(name)]).sum()) > 4:
                missed.append(name)
        return {"share": 1 - len(missed) / len(wanted), "missed": sorted(missed)}

    def frechet(self, steps: int) -> float:
        """The Fréchet distance of what is drawn to the data set, in the autoencoder's latents.

        As FID (arXiv 1706.08500), with the means of 4×4 latents as features (64 numbers) in place
        of Inception's: 0 is the data set's own distribution.
        """
        subjects = self._found.subjects
        chosen = self._some(NAMES, 2)
        drawn = self.draw([article(subjects[n].name) for n in chosen], steps, SEEDS[0])
        scenes = [captions.single(n) for n in chosen]
        true = torch.stack([self._pictures.scene(scene) for scene in scenes])
        (mean, spread), (other, wide) = (self._moments(part) for part in (drawn, true))
        root = linalg.sqrtm(spread @ wide).real
        return float(((mean - other) ** 2).sum() + np.trace(spread + wide - 2 * root))

    def autoencoder(self) -> dict[str, float]:
        """Mean L1 on [−1, 1] and PSNR of 48 subjects on the ten backgrounds."""
        errors, squares = [], []
        for number in self._some(CODED, 3):
            true = torch.stack(
                [self._pictures.scene(captions.single(number, colour)) for colour in BACKGROUNDS]
            )
            with torch.no_grad():
                model = self._pipeline.vae
                latents = model.encode(true.to(model.device)).latent_dist.mean
                decoded = model.decode(latents).sample.clamp(-1, 1).cpu()
            errors.append(float((decoded - true).abs().mean()))
            squares.append(float((decoded - true).square().mean()))
        return {
            "l1": float(np.mean(errors)),
            "psnr_db": float(np.mean([10 * np.log10(4 / square) for square in squares])),
        }

    def layout(self) -> float:
        """The share of pictures' layouts that the text encoder explains (R²), of all subjects."""
        source = captions.Captions(self._found.subjects)
        encoder, words = self._pipeline.text_encoder, self._pipeline.tokenizer

        def latents(scenes: list[Scene]) -> torch.Tensor:
            found = vae.encode(self._pipeline.vae, self._pictures, scenes)
            return found * self._pipeline.vae.config.scaling_factor

        reader = text.Reader().to(encoder.device)
        scenes, said = source.batch(random.Random(1), FITTED)
        reader.fit(encoder, words, said, latents(scenes))
        scenes, said = text.measured(source)
        return text.quality(encoder, reader, words, said, latents(scenes))

    def upscalers(self, folder: Path) -> dict[str, dict[str, float]]:
        """How near tintype's upscalers in a folder come to pictures; see `upscaler.compare`."""
        paths = {scale: folder / upscaler.file_name(scale) for scale in upscaler.STEPS}
        pictures = self._found.held_out
        return {
            path.stem: upscaler.compare(upscaler.read(path, scale), self._pipeline.vae, pictures)
            for scale, path in paths.items()
        }

    def _some(self, count: int, seed: int) -> list[int]:
        """Numbers of subjects that the model knows, always the same ones."""
        return random.Random(seed).sample(self._known, min(count, len(self._known)))

    def _moments(self, pictures: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        features = []
        for part in pictures.split(TOGETHER):
            with torch.no_grad():
                latents = self._pipeline.vae.encode(part.to(self._pipeline.vae.device)).latent_dist
            small = torch.nn.functional.adaptive_avg_pool2d(latents.mean, 4)
            features.append((small * self._pipeline.vae.config.scaling_factor).flatten(1).cpu())
        found = torch.cat(features).double().numpy()
        return found.mean(0), np.cov(found, rowvar=False)

    def _thumbnails(self, scenes: Sequence[Scene]) -> torch.Tensor:
        return torch.stack([thumbnail(self._pictures.scene(scene)) for scene in scenes])


def _distances(picture: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """L1 between a picture's thumbnail and many, (N,)."""
    return (truth - thumbnail(picture)).abs().mean((1, 2, 3))


def report(
    folder: Path, found: data.DataSet, out: Path, networks: Path = UPSCALERS
) -> dict[str, Any]:
    """Write sheets and `report.json` to a folder; return the report.

    Args:
        folder: of the model, in diffusers' format.
        found: the data set.
        out: is made if it is missing.
        networks: folder of the upscalers.
    """
    out.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(folder, found)
    result: dict[str, Any] = {
        "subjects": len(found.subjects),
        "known": evaluation.known,
        "autoencoder": evaluation.autoencoder(),
        "layout_r2": evaluation.layout(),
        "upscalers": evaluation.upscalers(networks),
    }
    for steps in tqdm(STEPS, "evaluation"):
        evaluation.sheet(SHEET, steps, out / f"sheet-{steps}-steps.png")
        result[f"{steps}_steps"] = {
            "retrieval": evaluation.retrieval(steps),
            "background_colour": evaluation.colours(steps),
            "held_out_pairs": evaluation.compositions(steps),
            "long_prompts": evaluation.long_prompts(steps),
            "frechet_distance": evaluation.frechet(steps),
        }
    (out / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def write_card(folder: Path, result: dict[str, Any], out: Path) -> None:
    """Put a report and its sheets into a model's folder and card, in place of earlier ones.

    Args:
        folder: of the model, with its card.
        result: from `report`.
        out: where `report` wrote the sheets.
    """
    parts = [result[f"{steps}_steps"] for steps in STEPS]
    rows = {
        f"nearest of {result['subjects']:,} subjects is the one asked for, "
        f"{NAMES} known names × {len(SEEDS)} seeds": [p["retrieval"]["top_1"] for p in parts],
        "is among the nearest five": [p["retrieval"]["top_5"] for p in parts],
        "background named = drawn": [p["background_colour"] for p in parts],
        "two things side by side, never trained on": [p["held_out_pairs"]["share"] for p in parts],
        "long pasted prompts: thing is among the nearest five": [
            p["long_prompts"]["share"] for p in parts
        ],
    }
    head = ["measure", *(f"{steps} steps" for steps in STEPS)]
    table = [head, ["---"] * len(head)]
    table += [[name, *(f"{share:.1%}" for share in shares)] for name, shares in rows.items()]
    table.append(
        ["Fréchet distance to the data set, 64 features of latents"]
        + [f"{part['frechet_distance']:.2f}" for part in parts]
    )
    coded = result["autoencoder"]
    said = [MEASURED, ""]
    said += [f"| {' | '.join(row)} |" for row in table]
    said += [
        "",
        f"Autoencoder, {CODED} subjects on the ten backgrounds: L1 {coded['l1']:.4f} on [−1, 1], "
        f"PSNR {coded['psnr_db']:.1f} dB. The text encoder explains {result['layout_r2']:.1%} of "
        f"the layout (R²) of {result['subjects']:,} subjects on the ten backgrounds. "
        "Nearest is meant by thumbnails of 32×32 pixels, the "
        "background included, to pictures of the things on white.",
    ]
    for steps, part in zip(STEPS, parts, strict=True):
        sheet = f"sheet-{steps}-steps.webp"
        with Image.open(out / f"sheet-{steps}-steps.png") as drawn:
            drawn.save(folder / sheet, quality=80, method=6)
        failed = {
            "Never among the nearest five": part["retrieval"]["missed"],
            "Long prompts that failed": part["long_prompts"]["missed"],
            "Pairs that were drawn": part["held_out_pairs"]["drawn"],
        }
        said += ["", f"![{len(SHEET)} prompts at {steps} steps]({sheet})", ""]
        said += [f"- {name}: {', '.join(those) or 'none'}." for name, those in failed.items()]
    card = folder / "README.md"
    before, heading, known = card.read_text().partition(export.KNOWN)
    before = before.partition(MEASURED)[0].rstrip()
    card.write_text("\n".join([before, "", *said, "", heading + known]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=TINTYPE, help="a diffusers folder")
    parser.add_argument("--to", type=Path, default=Path("runs/tintype/evaluation"))
    arguments = parser.parse_args()
    result = report(arguments.model, data.load(), arguments.to)
    write_card(arguments.model, result, arguments.to)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
