"""What a request costs while one, eight, 64 and 256 clients wait for their pictures."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from statistics import median

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import load
from benchmarks.accepting import SETTINGS, accept_ms
from benchmarks.figure import Figure, at_most
from benchmarks.servers import Server, darkroom
from benchmarks.suite import Effort, Suite, order

CLIENTS = (1, 8, 64, 256)
STEPS = 4
COMING_S = 120.0  # for all clients to be accepted

HOW = f"""\
Each client waits in a blocking `POST /txt2img` of {STEPS} steps. Images a second: each requests the
next picture when the last one is there, in turns. Accepting: the worker is stopped with SIGSTOP,
the clients come, and single `POST /txt2img` with `Prefer: respond-async` are timed, one after the
other; the ratio is of the medians."""


def waiting(effort: Effort) -> list[Figure]:
    rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    with darkroom(**SETTINGS) as server:
        server.until("/readyz")
        load.closed_loop(server, load.mixed(4, seed=0), 2)
        for turn in range(effort.rounds):
            for clients in order(CLIENTS, turn):
                jobs = [load.txt2img(STEPS, seed) for seed in range(max(effort.jobs, 2 * clients))]
                rates[clients].append(len(jobs) / load.closed_loop(server, jobs, clients))
        accepting = _accepting(server, 5 * effort.pictures)
    few, many = (median(accepting[clients]) for clients in (CLIENTS[0], CLIENTS[-1]))
    return [
        *(Figure(f"images a second, {n} clients", tuple(rates[n]), "/s") for n in CLIENTS),
        *(Figure(f"accepting, {n} clients wait", accepting[n], "ms") for n in CLIENTS),
        Figure(
            f"accepting, {CLIENTS[-1]} ÷ {CLIENTS[0]} that wait", (many / few,), "×", at_most(1.5)
        ),
    ]


def _accepting(server: Server, times: int) -> dict[int, tuple[float, ...]]:
    """Milliseconds until a job is accepted, by how many clients wait. Ends the server."""
    took: dict[int, tuple[float, ...]] = {}
    with ThreadPoolExecutor(CLIENTS[-1]) as pool:
        server.child("worker").suspend()
        try:
            waits = 0
            for clients in CLIENTS:
                for seed in range(waits, clients):
                    pool.submit(_wait, server, seed)
                waits = clients
                _until_queued(server, clients + times * len(took))
                took[clients] = tuple(accept_ms(server, seed) for seed in range(times))
        finally:
            server.child("worker").resume()
            server.process.terminate()
    return took


def _wait(server: Server, seed: int) -> None:
    """Ask for a picture, and wait for whatever the answer is."""
    with suppress(httpx2.TransportError):  # the server ended
        server.http.post("/txt2img", json=load.txt2img(STEPS, seed).body)


def _until_queued(server: Server, count: int) -> None:
    """Wait until so many jobs are in the queue, those that the stopped worker has among them.

    RuntimeError: some never come.
    """
    deadline = time.monotonic() + COMING_S
    while time.monotonic() < deadline:
        metrics = text_string_to_metric_families(server.http.get("/metrics").text)
        (jobs,) = (each for each in metrics if each.name == "darkroom_jobs")
        there = sum(
            sample.value
            for sample in jobs.samples
            if sample.labels["status"] in ("queued", "running")
        )
        if there >= count:
            return
        time.sleep(0.1)
    raise RuntimeError(f"of {count} jobs some are not in the queue after {COMING_S:.0f} s")


SUITE = Suite("waiting", "Many waiting clients", HOW, waiting)
