"""Previews on against previews off: they are to cost next to nothing."""

import tempfile
from pathlib import Path

from benchmarks import load, ours, servers
from benchmarks.figure import Figure, at_least, ratios
from benchmarks.servers import Server
from benchmarks.suite import Effort, Suite, order
from darkroom.config import EngineSettings
from darkroom.engine.engine import DiffusersEngine

JOBS = 8
STEPS, GUIDANCE, SIDE = 20, 3.0, 128
NEVER_S = 1e9

HOW = f"""\
The rate with default previews, divided by the rate with only the first preview. Engine: {JOBS} jobs
of {STEPS} steps running together, two engines in one process. Over HTTP: {JOBS} clients with the
mixed jobs of *Many clients*, two servers. In turns, with the other server stopped by SIGSTOP; the
two rates of each turn are divided."""


def measure(effort: Effort) -> list[Figure]:
    return [_by_the_engine(effort), _over_http(effort)]


def _by_the_engine(effort: Effort) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        shown = ours.engine(EngineSettings(dtype="float32"), Path(folder))
        hidden = ours.engine(EngineSettings(dtype="float32", preview_every_s=NEVER_S), Path(folder))
        rates: dict[DiffusersEngine, list[float]] = {shown: [], hidden: []}
        for engine in rates:
            engine.warm_up()
        jobs = [
            ours.request(steps=STEPS, guidance_scale=GUIDANCE, side=SIDE, seed=seed)
            for seed in range(JOBS)
        ]
        for turn in range(2 * effort.pictures + 1):
            for engine in order((shown, hidden), turn):
                rates[engine].append(JOBS / ours.seconds(engine, jobs))
    return Figure(
        f"images a second with previews over without, {JOBS} jobs in flight, engine",
        ratios(tuple(rates[shown]), tuple(rates[hidden]))[1:],  # the first turn warms up
        "×",
        at_least(0.98),
    )


def _over_http(effort: Effort) -> Figure:
    with servers.darkroom() as shown:
        load.warm_up(shown, "/readyz", JOBS)
        with servers.darkroom(**servers.NO_PREVIEWS) as hidden:
            load.warm_up(hidden, "/readyz", JOBS)
            rates: dict[Server, list[float]] = {shown: [], hidden: []}
            for turn in range(2 * effort.rounds):
                jobs = load.mixed(effort.jobs // 2, seed=turn)
                for server in order((shown, hidden), turn):
                    with server.awake():
                        rates[server].append(len(jobs) / load.closed_loop(server, jobs, JOBS))
    return Figure(
        f"images a second with previews over without, {JOBS} clients, over HTTP",
        ratios(tuple(rates[shown]), tuple(rates[hidden])),
        "×",
        at_least(0.98),
    )


SUITE = Suite("previews", "Previews", HOW, measure)
