"""What a request costs while one, eight, 64 and 256 clients wait for pictures."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from prometheus_client.parser import text_string_to_metric_families

from benchmarks import load
from benchmarks.accepting import SETTINGS, accept_ms
from benchmarks.figure import Figure, at_most
from benchmarks.servers import Server, darkroom
from benchmarks.suite import Effort, Suite, order

CLIENTS = (1, 8, 64, 256)
STEPS = 4

HOW = f"""\
Each client waits in a blocking `POST /txt2img` of {STEPS} steps. Images a second: each requests the
next picture when the last one is there, two for each client or more. Accepting: the worker is
stopped with SIGSTOP while they wait, and single `POST /txt2img` with `Prefer: respond-async` are
timed, one after the other. In turns; the ratios are of the medians."""


def waiting(effort: Effort) -> list[Figure]:
    rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    accepting: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    with darkroom(**SETTINGS) as server:
        server.until("/readyz")
        load.closed_loop(server, load.mixed(4, seed=0), 2)
        for turn in range(effort.rounds):
            for clients in order(CLIENTS, turn):
                jobs = [load.txt2img(STEPS, seed) for seed in range(max(effort.jobs, 2 * clients))]
                rates[clients].append(len(jobs) / load.closed_loop(server, jobs, clients))
                accepting[clients] += _accepted(server, clients, 5 * effort.pictures)
    few, many = (median(accepting[clients]) for clients in (CLIENTS[0], CLIENTS[-1]))
    return [
        *(Figure(f"images a second, {n} clients", tuple(rates[n]), "/s") for n in CLIENTS),
        *(Figure(f"accepting, {n} clients wait", tuple(accepting[n]), "ms") for n in CLIENTS),
        Figure(
            f"accepting, {CLIENTS[-1]} ÷ {CLIENTS[0]} that wait", (many / few,), "×", at_most(1.5)
        ),
    ]


def _accepted(server: Server, clients: int, times: int) -> list[float]:
    """Milliseconds of each accepted job, while so many clients wait."""
    worker = server.child("worker")
    with ThreadPoolExecutor(clients) as pool:
        worker.suspend()
        try:
            jobs = [load.txt2img(STEPS, seed) for seed in range(clients)]
            there = [pool.submit(load.develop, server.http, job) for job in jobs]
            _until(server, lambda jobs: jobs["queued"] == clients)
            took = [accept_ms(server, seed) for seed in range(times)]
        finally:
            worker.resume()
        for each in there:
            each.result()
    _until(server, lambda jobs: jobs["queued"] == jobs["running"] == 0)
    return took


def _until(server: Server, holds: Callable[[dict[str, float]], bool]) -> None:
    """Wait until something holds of the numbers of jobs by status."""
    while True:
        metrics = text_string_to_metric_families(server.http.get("/metrics").text)
        (jobs,) = (each for each in metrics if each.name == "darkroom_jobs")
        if holds({sample.labels["status"]: sample.value for sample in jobs.samples}):
            return
        time.sleep(0.1)


SUITE = Suite("waiting", "Many waiting clients", HOW, waiting)
