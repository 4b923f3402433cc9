"""Pictures that are explained against those that are not, and what others notice of them."""

import tempfile
from pathlib import Path

from benchmarks import ours
from benchmarks.figure import Figure, at_most, ratios
from benchmarks.suite import Effort, Suite, order
from darkroom.config import EngineSettings

STEPS, GUIDANCE, SIDE = 20, 3.0, 128
JOBS = 8

HOW = f"""\
One picture of {STEPS} steps on tintype with `explain` and without, in one engine, in turns; the two
times of each turn are divided. Without it, in an engine that explains a picture before each one,
and in one that never explained any. And one client's picture beside {JOBS} jobs of another client,
which are explained or not: the time until it is ready."""


def measure(effort: Effort) -> list[Figure]:
    turns = 2 * effort.pictures + 1
    with tempfile.TemporaryDirectory() as folder:
        settings = EngineSettings(dtype="float32")
        looking, plain = (ours.engine(settings, Path(folder)) for _ in range(2))
        for engine in (looking, plain):
            engine.warm_up()
        asked = ours.request(steps=STEPS, guidance_scale=GUIDANCE, side=SIDE)
        explained = asked.model_copy(update={"explain": True})
        with_it, without, after, never = ([0.0] * turns for _ in range(4))
        beside, alike = ([0.0] * turns for _ in range(2))
        for turn in range(turns):
            for request, seconds in order(((explained, with_it), (asked, without)), turn):
                seconds[turn] = ours.seconds(looking, [request])
            ours.seconds(looking, [explained])
            for engine, seconds in order(((looking, after), (plain, never)), turn):
                seconds[turn] = ours.seconds(engine, [asked])
            for request, seconds in order(((explained, beside), (asked, alike)), turn):
                seconds[turn] = ours.seconds_beside(looking, asked, [request] * JOBS)
    return [
        Figure(
            "time of a picture with `explain` ÷ without",
            ratios(tuple(with_it), tuple(without))[1:],  # the first turn warms up
            "×",
        ),
        Figure(
            "time of a picture without `explain`, after one with it ÷ never any",
            ratios(tuple(after), tuple(never))[1:],
            "×",
            at_most(1.05),
        ),
        Figure(
            f"time of a client's picture beside {JOBS} that are explained ÷ beside plain ones",
            ratios(tuple(beside), tuple(alike))[1:],
            "×",
        ),
    ]


SUITE = Suite("explain", "Explained pictures", HOW, measure)
