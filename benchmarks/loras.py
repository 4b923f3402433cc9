"""Jobs with different LoRAs in shared calls, against the same jobs without, and set by set."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks import ours, stock
from benchmarks.baseline import TINTYPE
from benchmarks.figure import Figure, ratios
from benchmarks.suite import Effort, Suite
from darkroom.config import EngineSettings
from darkroom.requests import Lora

JOBS, STEPS, GUIDANCE, SIDE, RANK = 8, 10, 3.0, 128, 16
SETS: tuple[tuple[Lora, ...], ...] = (
    (),
    (Lora(name="ink"),),
    (Lora(name="ink", scale=0.5),),
    (Lora(name="fog"),),
    (Lora(name="fog", scale=0.4), Lora(name="ink", scale=0.7)),
)

HOW = f"""\
{JOBS} jobs of {STEPS} steps in Darkroom's engine, on tintype, with {len(SETS)} sets of LoRAs among
them: none, one, the same with another scale, a second one, and both. The LoRAs have rank {RANK} on
all attention layers of the UNet. Compared with the same jobs without LoRAs, and with the jobs of
one set after those of another, as they were before sets shared calls. In turns; the rates of each
turn are divided. All jobs are drawn once before, in one step each, to warm up."""


def measure(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder) / "loras")
        engine = ours.engine(EngineSettings(dtype="float32"), Path(folder))
        engine.warm_up()
        mixed = [_request(SETS[number % len(SETS)], number) for number in range(JOBS)]
        plain = [_request((), number) for number in range(JOBS)]
        apart = [[asked for asked in mixed if asked.loras == loras] for loras in SETS]
        short = {"num_inference_steps": 1}
        ours.seconds(engine, [asked.model_copy(update=short) for asked in (*mixed, *plain)])
        rates: dict[str, list[float]] = {"mixed": [], "plain": [], "apart": []}
        for _ in range(effort.pictures):
            rates["mixed"].append(JOBS / ours.seconds(engine, mixed))
            rates["plain"].append(JOBS / ours.seconds(engine, plain))
            rates["apart"].append(JOBS / sum(ours.seconds(engine, each) for each in apart))
    counted = {name: tuple(each) for name, each in rates.items()}
    return [
        Figure(
            f"images a second, {JOBS} jobs, {len(SETS)} sets of LoRAs, together ÷ set by set",
            ratios(counted["mixed"], counted["apart"]),
            "×",
        ),
        Figure(
            f"images a second, {JOBS} jobs, {len(SETS)} sets of LoRAs ÷ without LoRAs",
            ratios(counted["mixed"], counted["plain"]),
            "×",
        ),
        Figure(f"images a second, {JOBS} jobs, {len(SETS)} sets of LoRAs", counted["mixed"], "/s"),
    ]


def _request(loras: tuple[Lora, ...], seed: int) -> Any:
    asked = ours.request(steps=STEPS, guidance_scale=GUIDANCE, side=SIDE, seed=seed)
    return asked.model_copy(update={"loras": loras})


def _draw(folder: Path) -> None:
    """Write LoRAs of random numbers for tintype."""
    folder.mkdir()
    unet = stock.load(TINTYPE, device="cpu").unet
    layers = {
        name: layer
        for name, layer in unet.named_modules()
        if ".attn" in name and isinstance(layer, torch.nn.Linear)
    }
    for seed, name in enumerate(("ink", "fog")):
        draw = torch.Generator().manual_seed(seed)
        tensors = {}
        for key, layer in layers.items():
            down = torch.randn(RANK, layer.in_features, generator=draw)
            up = torch.randn(layer.out_features, RANK, generator=draw)
            tensors[f"unet.{key}.lora_A.weight"] = down * 0.02
            tensors[f"unet.{key}.lora_B.weight"] = up * 0.02
        save_file(tensors, folder / f"{name}.safetensors")


SUITE = Suite("loras", "Different LoRAs at once", HOW, measure)
