"""Darkroom, stock diffusers, OpenVINO GenAI, ComfyUI and stable-diffusion.cpp in turns."""

import io
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx2
from PIL import Image

from benchmarks.figure import Figure, ratios
from benchmarks.geometry import SD15, Geometry
from benchmarks.peers.comfyui import comfyui
from benchmarks.peers.contestant import GUIDANCE, Contestant, Shape, Weights
from benchmarks.peers.diffusers_servers import baseline, darkroom, darkroom_openvino
from benchmarks.peers.genai import genai
from benchmarks.peers.sd_cpp import sd_cpp
from benchmarks.servers import Server
from benchmarks.suite import QUICK, Effort, Suite, order

FOLDER = "PEERS"
SHAPES = "PEERS_SHAPES"
ALL_SHAPES = "256x4 256x20 512x4 512x20"
QUICK_SHAPES = "256x4"
CLIENTS, QUICK_CLIENTS = 8, 4
WARM_UP = 2
BREAKS = (RuntimeError, TimeoutError, httpx2.HTTPError, subprocess.CalledProcessError)

HOW = f"""\
The shapes of Stable Diffusion 1.5 with random weights, the same for all; Euler's method, guidance
{GUIDANCE}. Seconds a picture: of one client that asks for a picture when the last one is there, and
of {CLIENTS} that ask for one each at once, divided by {CLIENTS}; over HTTP, PNG included. In turns
for each size: each turn is a new server, so that only one model is in memory, which draws
{WARM_UP} pictures of one step at once before it is measured; the two times of each turn are
divided. Darkroom and diffusers compute in fp32 on a CPU and in fp16 on a GPU if nothing else is
said, and the others in what they choose by themselves for a file in fp16. *With OpenVINO* is
`engine.backend: openvino`, after Darkroom has converted the model, and *in bfloat16* is
`engine.dtype: bfloat16`. Each is started as its own documentation says
([how to set them up](../benchmarks/peers/README.md)); a name with *not run* could not be."""


@dataclass(frozen=True)
class Times:
    """Seconds a picture in one turn: of one client, and of all at once."""

    alone: float
    together: float


def contestants(peers: Path | None) -> list[Contestant]:
    """All that are compared, whether they can run here or not; ours first.

    Args:
        peers: the folder that holds the others' programs.
    """
    ours = [each(dtype) for dtype in ("auto", "bfloat16") for each in (darkroom, darkroom_openvino)]
    return [*ours, baseline(), genai(peers), comfyui(peers), sd_cpp(peers)]


def measure(effort: Effort) -> list[Figure]:
    folder = os.environ.get(FOLDER)
    quick = effort == QUICK
    words = os.environ.get(SHAPES, QUICK_SHAPES if quick else ALL_SHAPES).split()
    shapes = [Shape(*map(int, word.split("x"))) for word in words]
    return compare(
        contestants(Path(folder).expanduser().absolute() if folder else None),
        SD15,
        shapes,
        clients=QUICK_CLIENTS if quick else CLIENTS,
        turns=effort.large_turns,
        pictures=effort.large_pictures,
    )


def compare(
    contestants: Sequence[Contestant],
    geometry: Geometry,
    shapes: Sequence[Shape],
    *,
    clients: int,
    turns: int,
    pictures: int,
) -> list[Figure]:
    """Let all draw all shapes in turns. One that breaks takes no further part, and is named.

    Args:
        contestants: the first is what the others are divided by, and may not break.
        clients: how many ask at once.
        turns: servers of each contestant and shape.
        pictures: how many the single client asks for in a turn.
    """
    first = contestants[0]
    why_not = {each.name: each.missing for each in contestants if each.missing}
    times: dict[tuple[Shape, str], list[Times]] = {}
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as name:
        weights = Weights(geometry, Path(name) / "models")
        for shape in shapes:
            for number in range(turns):
                for each in order(contestants, number):
                    if each.name in why_not:
                        continue
                    try:
                        taken = _turn(each, weights, shape, clients, pictures)
                    except BREAKS as error:
                        if each is first:
                            raise
                        print(f"  {each.name} broke: {error}", flush=True)
                        why_not[each.name] = f"it broke at {shape}: {_line(error)}"
                    else:
                        times.setdefault((shape, each.name), []).append(taken)
                        print(f"  {shape}, {each.name}: {taken}", flush=True)
    names = [each.name for each in contestants]
    figures = [each for shape in shapes for each in _figures(shape, names, times, turns, clients)]
    return figures + [Figure(name, (), why_not=why) for name, why in why_not.items()]


def _turn(
    contestant: Contestant, weights: Weights, shape: Shape, clients: int, pictures: int
) -> Times:
    """A fresh server, warmed up and measured."""
    with contestant.serve(weights) as server:
        _draw(contestant, server, Shape(shape.side, 1), range(WARM_UP))
        alone = median(_draw(contestant, server, shape, [seed]) for seed in range(pictures))
        seeds = range(pictures, pictures + clients)
        return Times(alone, _draw(contestant, server, shape, seeds) / clients)


def _draw(contestant: Contestant, server: Server, shape: Shape, seeds: Sequence[int]) -> float:
    """Seconds until the pictures of all these seeds are there, asked for at once.

    RuntimeError: one of them has another size.
    """
    began = time.perf_counter()
    with ThreadPoolExecutor(len(seeds)) as pool:
        drawn = list(pool.map(lambda seed: contestant.draw(server, shape, seed), seeds))
    seconds = time.perf_counter() - began
    for png in drawn:
        with Image.open(io.BytesIO(png)) as picture:
            if (picture.format, *picture.size) != ("PNG", shape.side, shape.side):
                raise RuntimeError(f"it drew a {picture.format} of {picture.size}")
    return seconds


def _line(error: Exception) -> str:
    """The end of what it says, which is the end of the server's log, as a cell of a table."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].replace("|", "/")[:200]


def _figures(
    shape: Shape,
    names: Sequence[str],
    times: dict[tuple[Shape, str], list[Times]],
    turns: int,
    clients: int,
) -> list[Figure]:
    """Of those that drew the shape in every turn."""
    whole = {name: taken for name in names if len(taken := times.get((shape, name), [])) == turns}
    figures = []
    for what, field in (("alone", "alone"), (f"{clients} at once", "together")):
        seconds = {
            name: tuple(float(getattr(turn, field)) for turn in taken)
            for name, taken in whole.items()
        }
        for name, values in seconds.items():
            figures.append(Figure(f"{shape}, {what}: {name}", values, "s a picture"))
        for name in names[1:]:
            if name in seconds:
                quotients = ratios(seconds[name], seconds[names[0]])
                figures.append(Figure(f"{shape}, {what}: {name} ÷ {names[0]}", quotients, "×"))
    return figures


SUITE = Suite("peers", "Beside other programs", HOW, measure, by_name=True)
