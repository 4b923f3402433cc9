"""What the settings bring that are off by default, and what they change of the pictures."""

import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from diffusers import AutoencoderTiny

from benchmarks import ours
from benchmarks.baseline import TINTYPE
from benchmarks.figure import Figure, ratios
from benchmarks.stock import SEED
from benchmarks.suite import Effort, Suite, order
from darkroom.config import EngineSettings

STEPS, GUIDANCE, SIDE = 20, 3.0, 128
MODEL = "with-tiny-vae"

HOW = f"""\
One picture of {STEPS} steps with the setting, divided by one without it, on tintype, with two
engines in one process, in turns; the two times of each turn are divided. The change is the mean
distance of the two pictures' values, of 255, a seed a turn. The tiny VAE has TAESD's architecture
and random weights, because its speed does not depend on them; its pictures say nothing."""


def measure(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        models_dir = _model(Path(folder))
        return [
            figure
            for name, settings in (
                ("`deep_cache_interval: 2`", {"deep_cache_interval": 2}),
                ("`deep_cache_interval: 3`", {"deep_cache_interval": 3}),
                ("`fuse_qkv: true`", {"fuse_qkv": True}),
                ("`tiny_vae: true`", {"tiny_vae": True}),
            )
            for figure in _against_without(name, settings, models_dir, effort)
        ]


def _model(data_dir: Path) -> Path:
    """A folder of models with tintype in it, and a tiny VAE that its notes name."""
    model = data_dir / "models" / MODEL
    shutil.copytree(TINTYPE, model)
    notes = json.loads((model / "darkroom.json").read_text())
    (model / "darkroom.json").write_text(json.dumps({**notes, "tiny_vae": "tiny"}))
    AutoencoderTiny().save_pretrained(data_dir / "vae" / "tiny")
    return model.parent


def _against_without(
    name: str, settings: dict[str, int], models_dir: Path, effort: Effort
) -> list[Figure]:
    engines = [
        ours.engine(EngineSettings(dtype="float32", **given), models_dir, MODEL)
        for given in (settings, {})
    ]
    times: list[list[float]] = [[], []]
    distances = []
    for turn in range(effort.pictures + 1):
        asked = ours.request(
            steps=STEPS, guidance_scale=GUIDANCE, side=SIDE, model=MODEL, seed=SEED + turn
        )
        pictures = {}
        for number in order((0, 1), turn):
            began = time.perf_counter()
            pictures[number] = ours.picture(engines[number], asked)
            times[number].append(time.perf_counter() - began)
        values = [np.asarray(pictures[number], np.float32) for number in (0, 1)]
        distances.append(float(np.abs(values[0] - values[1]).mean()))
    pairs = ratios(tuple(times[0]), tuple(times[1]))[1:]  # the first turn warms up
    found = [Figure(f"time of a picture with {name} ÷ without", pairs, "×")]
    if "tiny_vae" not in settings:
        found.append(Figure(f"change of a picture by {name}", tuple(distances), "of 255"))
    return found


SUITE = Suite("shortcuts", "Optional speed settings", HOW, measure)
