"""`python -m training`: from the data set to `server/darkroom/models/tintype`."""

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training import data, evaluate, export, latents, noise_predictor, pack, text, vae
from training.captions import Captions
from training.data import TINTYPE
from training.pictures import Pictures

SHARES = {"vae": 0.3, "text": 0.42, "noise_predictor": 0.95}  # of what is left of a budget


def main() -> None:
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/tintype"), help="checkpoints")
    parser.add_argument("--to", type=Path, default=TINTYPE, help="where the model is exported")
    parser.add_argument(
        "--start",
        type=Path,
        default=TINTYPE,
        help="the model to start from; its autoencoder and its tokenizer stay as they are",
    )
    parser.add_argument("--fresh", action="store_true", help="start from random weights")
    parser.add_argument(
        "--budget-s", type=float, help="seconds for all trainings; default: their full lengths"
    )
    parser.add_argument("--pack", action="store_true", help="write the data set anew, with npm")
    arguments = parser.parse_args()
    runs: Path = arguments.runs
    if arguments.pack:
        pack.write(runs / "packages")
        return
    found = data.load()
    start = None if arguments.fresh else arguments.start
    explained = run(found, runs, arguments.to, start, arguments.budget_s)
    print(f"text encoder: R² of the layout {explained:.4f}")
    result = evaluate.report(arguments.to, found, runs / "evaluation")
    evaluate.write_card(arguments.to, result, runs / "evaluation")
    print(json.dumps(result, indent=2))


def run(
    found: data.DataSet, runs: Path, to: Path, start: Path | None, budget_s: float | None
) -> float:
    """Train and export.

    Args:
        found: the data set.
        runs: folder for checkpoints; a run that was stopped goes on from them.
        to: folder for the model.
        start: the model to start from, or None for random weights.
        budget_s: seconds for all trainings.

    Returns:
        R² of the layout that the text encoder says.
    """
    captions, pictures = Captions(found.subjects), Pictures(found)
    begun = time.monotonic()

    def budget(stage: str) -> float | None:
        if budget_s is None:
            return None
        return max(0.0, SHARES[stage] * (budget_s - (time.monotonic() - begun)))

    torch.manual_seed(0)
    if start is None:
        autoencoder = vae.build()
        vae.train(autoencoder, pictures, runs, budget("vae"))
        tokenizer = text.train_tokenizer(captions)
        encoder, unet = text.build(tokenizer), noise_predictor.build()
    else:
        autoencoder = AutoencoderKL.from_pretrained(start / "vae", dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(start / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(start / "text_encoder", dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(start / "unet", dtype=torch.float32)
    autoencoder.eval().requires_grad_(False)

    scenes = latents.Latents(autoencoder, pictures, captions.scenes, runs / "latents.pt")
    autoencoder.register_to_config(scaling_factor=scenes.scale)
    reader = text.train(encoder, tokenizer, captions, scenes, runs, budget("text"))
    chosen, said = text.measured(captions)
    explained = text.quality(encoder, reader, tokenizer, said, scenes.of(chosen))
    noise_predictor.train(
        unet, encoder, tokenizer, captions, scenes, runs, budget("noise_predictor")
    )
    export.save(unet, encoder, tokenizer, autoencoder, pictures, found.subjects, to)
    return explained


if __name__ == "__main__":
    main()
