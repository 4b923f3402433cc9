"""`python -m training`: everything from an empty folder to `server/darkroom/models/tintype`."""

import argparse
from pathlib import Path

from training import data, evaluate, export, noise_predictor, text, vae

TINTYPE = Path("server/darkroom/models/tintype")


def main() -> None:
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/tintype"), help="checkpoints")
    parser.add_argument("--to", type=Path, default=TINTYPE, help="where the model is exported")
    arguments = parser.parse_args()
    runs: Path = arguments.runs

    data.fetch(runs / "packages")
    subjects = data.subjects(runs / "packages")
    trained_vae = vae.train(subjects, runs)
    tokenizer = text.load_or_train(subjects, runs / "tokenizer")
    unet, encoder = noise_predictor.train(subjects, trained_vae, tokenizer, runs)
    export.save(unet, encoder, tokenizer, trained_vae, subjects, arguments.to)
    evaluate.report(arguments.to, subjects, runs / "evaluation")


if __name__ == "__main__":
    main()
