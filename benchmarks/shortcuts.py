"""What the settings bring that are off by default, each against the engine without it."""

import json
import shutil
import tempfile
from pathlib import Path

from diffusers import AutoencoderTiny

from benchmarks import ours
from benchmarks.baseline import TINTYPE
from benchmarks.figure import Figure, ratios
from benchmarks.suite import Effort, Suite, order
from darkroom.config import EngineSettings

STEPS, GUIDANCE, SIDE = 20, 3.0, 128
MODEL = "with-tiny-vae"

HOW = f"""\
One picture of {STEPS} steps with the setting, divided by one without it, on tintype, with two
engines in one process, in turns; the two times of each turn are divided. The tiny VAE has TAESD's
architecture and random weights, because its speed does not depend on them."""


def measure(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        models_dir = _model(Path(folder))
        return [
            _against_without(name, settings, models_dir, effort)
            for name, settings in (
                ("`deep_cache_interval: 2`", {"deep_cache_interval": 2}),
                ("`deep_cache_interval: 3`", {"deep_cache_interval": 3}),
                ("`fuse_qkv: true`", {"fuse_qkv": True}),
                ("`tiny_vae: true`", {"tiny_vae": True}),
            )
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
) -> Figure:
    with_it, without = (
        ours.engine(EngineSettings(dtype="float32", **given), models_dir, MODEL)
        for given in (settings, {})
    )
    asked = ours.request(steps=STEPS, guidance_scale=GUIDANCE, side=SIDE, model=MODEL)
    times: dict[object, list[float]] = {with_it: [], without: []}
    for turn in range(effort.pictures + 1):
        for engine in order((with_it, without), turn):
            times[engine].append(ours.seconds(engine, [asked]))
    pairs = ratios(tuple(times[with_it]), tuple(times[without]))
    return Figure(f"time of a picture with {name} ÷ without", pairs[1:], "×")  # the first warms up


SUITE = Suite("shortcuts", "Optional speed settings", HOW, measure)
