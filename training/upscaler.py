"""tintype's upscalers: small networks that make pictures 2 or 4 times as large, and sharper.

The architecture is Real-ESRGAN's small one, called Compact (arXiv 2107.10833, `SRVGGNetCompact`):
convolutions at the small size, then pixel shuffle, added to the enlarged input. What they are
shown went through tintype's autoencoder, so that they take away its blur as well.
"""

import argparse
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from training import data, loop
from training.colours import BACKGROUNDS
from training.data import SIDE, TINTYPE, DataSet
from training.pictures import to_image, to_tensor

WIDTH, DEPTH = 40, 8
STEPS = {2: 4_000, 4: 2_000}  # ×4 starts from ×2, but for the last layer
BATCH, ADAM_RATE, DECAY = 8, 1e-3, 0.998
UPSCALERS = Path("server/darkroom/models/upscalers")
CROP = 48  # pixels a side of what the network is shown
CODED_SHARE = 0.7  # of that went through the autoencoder
PHOTOGRAPH_SHARE, LAST_PHOTOGRAPH_SHARE = 0.3, 0.1  # photographs alone leave noise on flat colours
LAST = 0.75  # where the last part of a training begins
EDGE_WEIGHT = 1.0


class Compact(nn.Module):
    """SRVGGNetCompact, with its names of weights."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        for _ in range(DEPTH):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        last = nn.Conv2d(WIDTH, 3 * scale * scale, 3, padding=1)
        nn.init.zeros_(last.weight)  # so that it starts as nearest-neighbour enlargement
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(*layers, last)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 3, scale·H, scale·W), both from 0 to 1."""
        enlarged = F.interpolate(picture, scale_factor=float(self.scale), mode="nearest")
        return F.pixel_shuffle(self.body(picture), self.scale) + enlarged


class Pairs:
    """Draws small pictures and what they look like larger.

    Args:
        found: the data set.
        vae: tintype's.
        scale: between the two.
    """

    def __init__(self, found: DataSet, vae: AutoencoderKL, scale: int) -> None:
        self._data = found
        self._vae = vae.to(loop.device()).eval()
        self._scale = scale

    @torch.no_grad()
    def draw(self, step: int, done: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, 48, 48) and (B, 3, 48·scale, 48·scale), from 0 to 1.

        Args:
            step: of the training.
            done: share of the training, 0 to 1.
        """
        rng = np.random.default_rng((self._scale, step))
        share = PHOTOGRAPH_SHARE if done < LAST else LAST_PHOTOGRAPH_SHARE
        large = torch.stack([self._large(rng, share) for _ in range(BATCH)]).to(loop.device())
        small = F.interpolate(large, scale_factor=1 / self._scale, mode="area")
        if rng.random() < CODED_SHARE:
            with loop.mixed_precision():
                latents = self._vae.encode(small * 2 - 1).latent_dist.mean
                small = (self._vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)
        return small, large

    def _large(self, rng: np.random.Generator, photographs: float) -> torch.Tensor:
        """A crop at the large size, (3, n, n) from 0 to 1."""
        side = CROP * self._scale
        if rng.random() < photographs:
            picture = self._data.photographs[rng.integers(len(self._data.photographs))]
            taken = int(rng.integers(side, min(*picture.size, 2 * side) + 1))
        else:
            cut_out = self._data.large[rng.integers(len(self._data.large))]
            colours = list(BACKGROUNDS.values())
            picture = Image.new("RGB", cut_out.size, colours[rng.integers(len(colours))])
            picture.paste(cut_out, (0, 0), cut_out)
            # At the size that tintype draws a thing, 110 of 128 pixels, enlarged by the scale, but
            # never enlarged from the picture itself: a blurred target teaches to blur.
            drawn = round(side * picture.width / (SIDE * self._scale))
            taken = min(picture.width, max(side, drawn))
        left = int(rng.integers(picture.width - taken + 1))
        top = int(rng.integers(picture.height - taken + 1))
        box = (left, top, left + taken, top + taken)
        crop = picture.resize((side, side), Image.Resampling.LANCZOS, box)
        tensor = (to_tensor(crop) + 1) / 2
        return tensor.flip(-1) if rng.random() < 0.5 else tensor


def file_name(scale: int) -> str:
    return f"tintype-x{scale}.safetensors"


def read(path: Path, scale: int) -> Compact:
    """A network from its file. Layers of another scale's network that do not fit stay as new."""
    network = Compact(scale)
    own = network.state_dict()
    stored = {name: weight.float() for name, weight in load_file(path).items()}
    fitting = {name: w for name, w in stored.items() if w.shape == own[name].shape}
    network.load_state_dict(own | fitting)
    return network


@torch.no_grad()
def compare(
    network: Compact, vae: AutoencoderKL, cut_outs: Sequence[Image.Image]
) -> dict[str, float]:
    """Mean L1 on [−1, 1] and PSNR of a network's pictures, and of Lanczos' in its place.

    Pictures on the ten backgrounds in turn are made smaller, go through the autoencoder, and are
    made as large again as they were.

    Args:
        network: of any scale.
        vae: tintype's.
        cut_outs: RGBA, none of them seen in training.
    """
    network = network.to(loop.device()).eval()
    ours, lanczos = [], []
    for cut_out, colour in zip(cut_outs, cycle(BACKGROUNDS.values())):
        whole = Image.new("RGB", cut_out.size, colour)
        whole.paste(cut_out, (0, 0), cut_out)
        true = to_tensor(whole)
        small = F.interpolate(true[None], scale_factor=1 / network.scale, mode="area")
        latents = vae.encode(small.to(vae.device)).latent_dist.mean
        coded = to_image(vae.decode(latents).sample[0])
        shown = (to_tensor(coded)[None].to(loop.device()) + 1) / 2
        made = to_image(network(shown)[0] * 2 - 1)
        ours.append(to_tensor(made) - true)
        lanczos.append(to_tensor(coded.resize(whole.size, Image.Resampling.LANCZOS)) - true)
    return _errors(ours) | {f"lanczos_{name}": e for name, e in _errors(lanczos).items()}


def _errors(differences: Sequence[torch.Tensor]) -> dict[str, float]:
    """Mean L1 and PSNR of differences between pictures in [-1, 1]."""
    absolute = torch.stack([d.abs().mean() for d in differences])
    square = torch.stack([d.square().mean() for d in differences])
    return {"l1": float(absolute.mean()), "psnr_db": float((10 * (4 / square).log10()).mean())}


def train(
    found: DataSet, vae: AutoencoderKL, scale: int, runs: Path, to: Path, budget_s: float | None
) -> Path:
    """Train the network of one scale, and write it to a folder.

    If the network of scale 2 is there already, that of scale 4 starts from it.
    """
    torch.manual_seed(0)
    start = to / file_name(2)
    network = read(start, scale) if scale != 2 and start.exists() else Compact(scale)
    network.to(loop.device(), memory_format=torch.channels_last)
    pairs = Pairs(found, vae, scale)

    def loss(step: int, done: float) -> torch.Tensor:
        small, large = pairs.draw(step, done)
        with loop.mixed_precision():
            made = network(small)
        made = made.float()
        edges = F.l1_loss(made.diff(dim=-1), large.diff(dim=-1)) + F.l1_loss(
            made.diff(dim=-2), large.diff(dim=-2)
        )
        return F.l1_loss(made, large) + EDGE_WEIGHT * edges

    average = loop.train(
        name=f"upscaler ×{scale}",
        modules={"network": network},
        loss=loss,
        steps=STEPS[scale],
        adam_rate=ADAM_RATE,
        checkpoint=runs / f"upscaler-x{scale}.pt",
        decay=DECAY,
        budget_s=budget_s,
    )
    target = to / file_name(scale)
    to.mkdir(parents=True, exist_ok=True)
    weights = {
        name: weight.half().contiguous() for name, weight in average.weights["network"].items()
    }
    save_file(weights, target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.upscaler", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/tintype"), help="checkpoints")
    parser.add_argument("--to", type=Path, default=UPSCALERS, help="folder for the networks")
    parser.add_argument("--model", type=Path, default=TINTYPE, help="whose autoencoder")
    parser.add_argument("--scale", type=int, choices=STEPS, action="append", help="default: both")
    parser.add_argument("--budget-s", type=float, help="seconds for each network")
    arguments = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(arguments.model / "vae", dtype=torch.float32)
    for scale in arguments.scale or STEPS:
        train(data.load(), vae, scale, arguments.runs, arguments.to, arguments.budget_s)


if __name__ == "__main__":
    main()
