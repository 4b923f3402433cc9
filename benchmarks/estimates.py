"""What callers are told of how long it will take, against how long it took."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from benchmarks import load
from benchmarks.figure import Figure, at_most
from benchmarks.load import Job
from benchmarks.servers import Server, darkroom
from benchmarks.suite import Effort, Suite

CALLERS = 4
STEPS = 12
WARM_UP = 2 * CALLERS  # jobs

HOW = f"""\
{CALLERS} clients each request the next picture when the last one is finished: in one round all with
{STEPS} steps, in another the mixed jobs of *Many clients*. The `eta_seconds` at acceptance is
compared with the time until the job succeeded, in the second half of each round."""


def estimates(effort: Effort) -> list[Figure]:
    kinds: dict[str, Callable[[int], Sequence[Job]]] = {
        "like jobs": lambda seed: [load.txt2img(STEPS, seed)] * effort.jobs,
        "mixed jobs": lambda seed: load.mixed(effort.jobs, seed),
    }
    figures = []
    with darkroom() as server:
        server.until("/readyz")
        load.closed_loop(server, load.mixed(WARM_UP, seed=0), CALLERS)
        for name, jobs in kinds.items():
            rounds = [_round(server, jobs(seed)) for seed in range(effort.rounds)]
            errors = tuple(median(abs(told / took - 1) for told, took in r) for r in rounds)
            biases = tuple(median(told / took for told, took in r) for r in rounds)
            figures += [
                Figure(f"error of the estimate, {name}", errors, "", at_most(0.25)),
                Figure(f"estimate ÷ actual, {name}", biases, "×"),
            ]
    return figures


def _round(server: Server, jobs: Sequence[Job]) -> list[tuple[float, float]]:
    """Seconds that were foreseen and that it took, of the later half of the jobs."""
    with ThreadPoolExecutor(CALLERS) as pool:
        measured = list(pool.map(lambda job: _one(server, job), jobs))
    return measured[len(measured) // 2 :]


def _one(server: Server, job: Job) -> tuple[float, float]:
    began = time.perf_counter()
    headers = {"prefer": "respond-async"}
    accepted = server.http.post(f"/{job.task}", json=job.body, headers=headers).json()
    told: float = accepted["eta_seconds"]
    with server.http.stream("GET", f"{accepted['url']}/events") as events:
        for _ in events.iter_lines():
            pass
    return told, time.perf_counter() - began


SUITE = Suite("estimates", "Estimates", HOW, estimates)
