"""UNets and VAEs computed by OpenVINO on the CPU, against torch and against the locked baseline."""

import json
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks import geometry, load, servers
from benchmarks.figure import Figure, at_least, at_most, ratios
from benchmarks.geometry import SD15
from benchmarks.load import Job
from benchmarks.servers import Server
from benchmarks.suite import Effort, Suite, order
from benchmarks.traffic import CLIENTS

SIDE, STEPS = 256, 4
# In the log.
LOADED = "OpenVINO computes the model"
LEFT = "torch computes the model, not OpenVINO"
CONVERTED_S = 1800
BUDGET = {"DARKROOM_ENGINE__MEMORY_BUDGET_BYTES": str(12 * 2**30)}

HOW = f"""\
The server with `engine.backend: openvino`, after it has converted the model, beside the server with
torch and, for {CLIENTS} clients with mixed jobs on tintype, the baseline of the section above. In
turns, with the others stopped by SIGSTOP; the values of each turn are divided. One request is of 20
steps on tintype, and of {STEPS} steps at {SIDE}×{SIDE} with the shapes of Stable Diffusion 1.5 and
random weights, in float32. Needs `pip install openvino`."""


def measure(effort: Effort) -> list[Figure]:
    if find_spec("openvino") is None:
        return []
    return _clients(effort) + _large(effort)


def _clients(effort: Effort) -> list[Figure]:
    with (
        servers.darkroom() as torch,
        servers.darkroom(DARKROOM_ENGINE__BACKEND="openvino") as openvino,
        servers.baseline() as baseline,
    ):
        contestants = (openvino, torch, baseline)
        load.warm_up(torch, "/readyz", CLIENTS)
        load.warm_up(baseline, "/healthz", CLIENTS)
        load.warm_up(openvino, "/readyz", CLIENTS)
        with openvino.awake():
            until_converted(openvino, "tintype")
        rates: dict[Server, list[float]] = {server: [] for server in contestants}
        for turn in range(effort.rounds):
            jobs = load.mixed(effort.jobs, seed=turn)
            for server in order(contestants, turn):
                with server.awake():
                    rates[server].append(len(jobs) / load.closed_loop(server, jobs, CLIENTS))
        asked = load.txt2img(20)
        alone = _alone((openvino, torch), asked, effort.pictures)
    ours, by_torch, theirs = (tuple(rates[server]) for server in contestants)
    name = f"images a second, {CLIENTS} clients, mixed jobs, tintype"
    return [
        Figure(
            f"{name}: over the baseline's", ratios(ours, theirs), "×", at_least(1.6), at_least(3)
        ),
        Figure(f"{name}: over torch's", ratios(ours, by_torch), "×"),
        Figure(f"{name}: OpenVINO", ours, "/s"),
        Figure(f"{name}: torch", by_torch, "/s"),
        Figure(f"{name}: baseline", theirs, "/s"),
        *_figures("one request, tintype", alone),
    ]


def _large(effort: Effort) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-models-") as folder:
        geometry.write_apart(SD15, Path(folder))
        body = {"model": SD15.name, "width": SIDE, "height": SIDE, "prompt": load.PROMPTS[0]}
        asked = Job("txt2img", {**body, "num_inference_steps": STEPS, "seed": 7})
        paths = {"DARKROOM_MODELS__PATHS": json.dumps([folder]), **BUDGET}
        with (
            servers.darkroom(**paths) as torch,
            servers.darkroom(**paths, DARKROOM_ENGINE__BACKEND="openvino") as openvino,
        ):
            for server in (torch, openvino):
                server.until("/readyz")
                load.one(server, asked)
                server.pause()
            with openvino.awake():
                until_converted(openvino, SD15.name)
            alone = _alone((openvino, torch), asked, effort.pictures)
    return _figures(f"one request, SD 1.5's shapes, {SIDE}×{SIDE}, {STEPS} steps", alone)


def until_converted(server: Server, model: str) -> None:
    """Wait until a server that was asked for a picture has converted the model.

    Raises:
        RuntimeError: it could not, as the log says.
        TimeoutError: it has not.
    """
    deadline = time.monotonic() + CONVERTED_S
    while True:
        said = [line for line in server.log.read_text().splitlines() if model in line]
        if any(LOADED in line for line in said):
            return
        for line in said:
            if LEFT in line:
                raise RuntimeError(line)
        if time.monotonic() > deadline:
            raise TimeoutError(server.log.read_text())
        time.sleep(0.2)


def _alone(contestants: tuple[Server, ...], job: Job, pictures: int) -> list[tuple[float, ...]]:
    """Seconds of each contestant's requests, in turns; the first of each is not counted."""
    seconds: dict[Server, list[float]] = {server: [] for server in contestants}
    for turn in range(pictures + 1):
        for server in order(contestants, turn):
            with server.awake():
                seconds[server].append(load.one(server, job))
    return [tuple(each[1:]) for each in seconds.values()]


def _figures(name: str, alone: list[tuple[float, ...]]) -> list[Figure]:
    openvino, torch = alone
    return [
        Figure(f"{name}: OpenVINO ÷ torch", ratios(openvino, torch), "×", at_most(1.1)),
        Figure(f"{name}: OpenVINO", openvino, "s"),
        Figure(f"{name}: torch", torch, "s"),
    ]


SUITE = Suite("openvino", "OpenVINO on a CPU", HOW, measure)
