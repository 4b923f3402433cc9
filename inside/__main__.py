"""Makes the pictures and numbers of docs/how-it-works.md: `python -m inside`."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from inside import autoencoder, diffusion, flows, sweeps, words
from inside.model import PROMPT, Model

PAGE = Path("docs/how-it-works.md")
PICTURES: dict[str, Callable[[Model], Image.Image]] = {
    "autoencoder": autoencoder.there_and_back,
    "channels": autoencoder.channels,
    "forward": diffusion.forward,
    "reverse": diffusion.reverse,
    "embeddings": words.embeddings,
    "layout": words.positions,
    "words": words.looked_at,
    "guidance": sweeps.guidance,
    "strength": sweeps.strength,
}


def kl_table(model: Model) -> str:
    """What the KL term is, by two examples, and what it came to."""
    deviation, divergence, spread = autoencoder.posterior(model)
    examples = (0, 1, 1, 3), (-4, 3.1, -4, 3)
    lines = ["| | |", "|---|---|"]
    for mean, deviation, *other in examples:
        name = f"KL of N({mean}, {deviation}) from N({other[0]}, {other[1]})"
        lines.append(f"| {name} | {autoencoder.kl(mean, deviation, *other):.4f} |")
    lines.append(f"| KL of one of tintype's latents from N(0, 1), on average | {divergence:.2f} |")
    lines += [
        f"| standard deviation that the encoder gives a number, on average | {deviation:.3f} |",
        f"| standard deviation of the means of all numbers | {spread:.2f} |",
    ]
    return "\n".join(lines)


def tokens_table(model: Model) -> str:
    """The prompt's tokens with their ids."""
    ids, said = model.tokens(PROMPT)[0].tolist(), words.said(model, PROMPT)
    head = " | ".join(text.strip("<|>") for text in said)
    numbers = " | ".join(map(str, ids[: len(said)]))
    padding = f"{77 - len(said)} times {ids[-1]}"
    return f"| {head} | padding |\n|{'---|' * (len(said) + 1)}\n| {numbers} | {padding} |"


def words_table(model: Model) -> str:
    """How well a word's maps tell its subject from the background."""
    lines = ["| prompt | subject, own | subject, carried back | colour, carried back |"]
    lines.append("|---|---|---|---|")
    for text, *areas in words.told_apart(model):
        lines.append(f"| {text} | {' | '.join(f'{area:.2f}' for area in areas)} |")
    return "\n".join(lines)


def flows_table(model: Model) -> str:
    """The arrays of the three ways in."""
    lines = ["| task | part | is given | gives |", "|---|---|---|---|"]
    for task, arrows in flows.flows(model).items():
        lines += [f"| {task} | {part} | {given} | {gives} |" for part, given, gives in arrows]
    return "\n".join(lines)


TABLES: dict[str, Callable[[Model], str]] = {
    "kl": kl_table,
    "tokens": tokens_table,
    "words": words_table,
    "flows": flows_table,
}


def with_tables(page: str, tables: dict[str, str]) -> str:
    """The page with its tables in place of what stands between their markers.

    ValueError: a table has no place, or several.
    """
    for name, table in tables.items():
        begin = f"<!-- {name}: made by `make inside` -->\n"
        between = re.compile(f"({begin}).*?(\n<!-- end -->)", re.DOTALL)
        page, count = between.subn(lambda m, table=table: m[1] + table + m[2], page)
        if count != 1:
            raise ValueError(f"the page has {count} places for the table {name!r}")
    return page


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture as the page has it."""
    picture.save(path, quality=85, method=6)


@torch.inference_mode()
def make(folder: Path, page: Path) -> None:
    """Write all pictures into a folder, and all tables into a page."""
    model = Model()
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        path = folder / f"{name}.webp"
        save(draw(model), path)
        print(path)
    tables = {name: table(model) for name, table in TABLES.items()}
    page.write_text(with_tables(page.read_text(), tables))
    print(page)


def main() -> None:
    parser = argparse.ArgumentParser(prog="inside", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="the page, beside its pictures")
    page = parser.parse_args().page
    make(page.with_suffix(""), page)


if __name__ == "__main__":
    main()
