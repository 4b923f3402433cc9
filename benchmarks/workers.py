"""How much faster two workers are than one."""

import json
import tempfile
import time
from pathlib import Path

from benchmarks import geometry, load
from benchmarks.figure import Bound, Figure, at_least, ratios
from benchmarks.geometry import SD15
from benchmarks.load import Job
from benchmarks.servers import Server, darkroom
from benchmarks.suite import Effort, Suite, order
from darkroom.queue.peers import READ_EVERY_S

WORKERS = 2
CLIENTS = 4
SIDE, STEPS = 256, 4
SETTINGS = {
    "DARKROOM_WORKERS": str(WORKERS),
    "DARKROOM_WORKER__NAME": "bench",
    "DARKROOM_ENGINE__DEVICE": "cpu",
    "DARKROOM_ENGINE__MEMORY_BUDGET_BYTES": str(8 * 2**30),
    "OMP_NUM_THREADS": "1",
}

HOW = f"""\
A server with {WORKERS} workers of one thread each, and {CLIENTS} clients that each request the next
picture when the last one is there: with Stable Diffusion 1.5's geometry and random weights
({SIDE}×{SIDE}, {STEPS} steps), and with tintype. In turns, all workers, and one while the other is
told to drain; the two rates of each turn are divided. Models are in memory before."""


def workers(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-models-") as name:
        geometry.write_apart(SD15, Path(name))
        settings = {**SETTINGS, "DARKROOM_MODELS__PATHS": json.dumps([name])}
        with darkroom(**settings) as server:
            _until_all_are_ready(server)
            tintype = tuple(load.txt2img(20, seed) for seed in range(effort.jobs))
            body = {"model": SD15.name, "width": SIDE, "height": SIDE, "prompt": "a red fox"}
            body |= {"num_inference_steps": STEPS}
            pictures = range(2 * CLIENTS)  # half a minute each on one thread
            large = tuple(Job("txt2img", {**body, "seed": seed}) for seed in pictures)
            return [
                *_figures(server, effort, large, "Stable Diffusion 1.5's geometry", at_least(1.8)),
                *_figures(server, effort, tintype, "tintype", None),
            ]


def _figures(
    server: Server, effort: Effort, jobs: tuple[Job, ...], what: str, limit: Bound | None
) -> list[Figure]:
    for name in ("bench", "bench-1"):  # each loads the model
        with _Drained(server, name):
            load.closed_loop(server, jobs[:2], 2)
    rates: dict[int, list[float]] = {1: [], WORKERS: []}
    for turn in range(effort.rounds):
        for number in order((1, WORKERS), turn):
            with _Drained(server, "bench-1" if number == 1 else None):
                rates[number].append(len(jobs) / load.closed_loop(server, jobs, CLIENTS))
    one, all_of_them = tuple(rates[1]), tuple(rates[WORKERS])
    return [
        Figure(f"{what}: one worker", one, "images/s"),
        Figure(f"{what}: {WORKERS} workers", all_of_them, "images/s"),
        Figure(f"{what}: {WORKERS} workers ÷ one", ratios(all_of_them, one), "×", limit),
    ]


def _until_all_are_ready(server: Server) -> None:
    server.until("/readyz")
    while sum(each["ready"] for each in server.http.get("/workers").json()["workers"]) < WORKERS:
        time.sleep(0.1)


class _Drained:
    """Context in which a worker claims nothing; None is no worker."""

    def __init__(self, server: Server, name: str | None) -> None:
        self._server, self._name = server, name

    def __enter__(self) -> None:
        self._tell("drain")

    def __exit__(self, *_: object) -> None:
        self._tell("resume")

    def _tell(self, what: str) -> None:
        if self._name is not None:
            self._server.http.post(f"/workers/{self._name}/{what}").raise_for_status()
            time.sleep(2 * READ_EVERY_S)  # until the other one knows


SUITE = Suite("workers", "Several workers", HOW, workers)
