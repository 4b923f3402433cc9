"""Many callers at once: ours against the pipelines behind Flask and a lock."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

from benchmarks import load, load_tool, servers
from benchmarks.figure import Figure, at_least, at_most, ratios
from benchmarks.load import Job
from benchmarks.servers import Server
from benchmarks.suite import Effort, Suite, order

CLIENTS = 8
SAMPLE_S = 0.25  # between looks at memory
LONG_JOBS, LONG_STEPS, SHORT_STEPS = 4, 50, 4
SOLOS = 3
LEAD_S = 0.5  # the long jobs are under way by then
OCCUPANCY = 0.8  # of the baseline's capacity

THROUGHPUT_HOW = f"""\
{CLIENTS} clients, each of which requests the next job of one list when its last one is answered, so
that {CLIENTS} jobs run at a time: txt2img, img2img and inpaint, {min(load.STEPS)}–{max(load.STEPS)}
steps, {len(load.SCHEDULERS)} schedulers, with and without guidance, different seeds. The baseline
is a simple server: the diffusers pipelines behind Flask and a lock
([`benchmarks/baseline.py`](../benchmarks/baseline.py)), in a separate process with the same
weights, dtype and threads. It gets the same list from the same clients. In turns, with the other
server stopped by SIGSTOP; the two rates of each turn are divided. The worker's memory (PSS) is
sampled four times a second in a separate round; the figure is the maximum."""

SHORT_HOW = f"""\
{LONG_JOBS} jobs of {LONG_STEPS} steps are sent, and {LEAD_S} s later another client sends one of
{SHORT_STEPS} steps. Its latency is divided by the median of {SOLOS} such jobs that ran alone just
before. The same for the baseline, in turns."""

ARRIVALS_HOW = f"""\
The same mix of jobs, sent at the times of a Poisson process with {OCCUPANCY:.0%} of the rate that
the baseline has just reached with {CLIENTS} clients, without waiting for answers. Latency is
measured from that time to the picture. Jobs and times come from a seed and are the same for both
servers, in turns; the percentiles of each turn are divided."""


@contextmanager
def contestants() -> Iterator[tuple[Server, Server]]:
    """Ours and the baseline, loaded one after the other, warmed up and paused."""
    with servers.darkroom() as ours:
        load.warm_up(ours, "/readyz", CLIENTS)
        with servers.baseline() as theirs:
            load.warm_up(theirs, "/healthz", CLIENTS)
            yield ours, theirs


# --- throughput ----------------------------------------------------------------------------


def throughput(effort: Effort) -> list[Figure]:
    with contestants() as (ours, theirs):
        rates: dict[Server, list[float]] = {ours: [], theirs: []}
        for turn in range(effort.rounds):
            jobs = load.mixed(effort.jobs, seed=turn)
            for server in order((ours, theirs), turn):
                with server.awake():
                    rates[server].append(len(jobs) / load.closed_loop(server, jobs, CLIENTS))
        with ours.awake():
            peak = _peak_memory(ours, load.mixed(2 * CLIENTS, seed=0))
    our_rates, their_rates = tuple(rates[ours]), tuple(rates[theirs])
    return [
        Figure(
            f"images a second over the baseline's, {CLIENTS} clients, mixed jobs",
            ratios(our_rates, their_rates),
            "×",
            at_least(1.6),
            at_least(2.5),
        ),
        Figure("images a second, ours", our_rates, "/s"),
        Figure("images a second, baseline", their_rates, "/s"),
        Figure(
            f"memory of the worker, {CLIENTS} jobs in flight",
            (peak,),
            "MiB",
            at_most(round(1.5e9 / servers.MIB)),
        ),
    ]


def _peak_memory(server: Server, jobs: Sequence[Job]) -> float:
    """MiB, the most that the worker had while it did these jobs."""
    worker = server.child("worker")
    done = threading.Event()
    seen: list[float] = []

    def look() -> None:
        while not done.is_set():
            seen.append(servers.memory(worker))
            done.wait(SAMPLE_S)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        load.closed_loop(server, jobs, CLIENTS)
    finally:
        done.set()
        looker.join()
    return max(seen)


# --- a short job among long ones -----------------------------------------------------------


def short_job(effort: Effort) -> list[Figure]:
    with contestants() as (ours, theirs):
        slowdowns: dict[Server, list[float]] = {ours: [], theirs: []}
        for turn in range(effort.rounds):
            for server in order((ours, theirs), turn):
                with server.awake():
                    slowdowns[server].append(_slowdown(server))
    name = f"latency of {SHORT_STEPS} steps while {LONG_JOBS} jobs of {LONG_STEPS} run ÷ alone"
    return [
        Figure(f"{name}, ours", tuple(slowdowns[ours]), "×", at_most(3), at_most(2)),
        Figure(f"{name}, baseline", tuple(slowdowns[theirs]), "×"),
    ]


def _slowdown(server: Server) -> float:
    short = load.txt2img(SHORT_STEPS)
    alone = median(load.one(server, short) for _ in range(SOLOS))
    with ThreadPoolExecutor(LONG_JOBS) as pool:
        long = [
            pool.submit(load.one, server, load.txt2img(LONG_STEPS, seed))
            for seed in range(LONG_JOBS)
        ]
        time.sleep(LEAD_S)
        among = load.one(server, short)
        for job in long:
            job.result()
    return among / alone


# --- arrivals ------------------------------------------------------------------------------


def arrivals(effort: Effort) -> list[Figure]:
    with contestants() as (ours, theirs):
        latencies: dict[Server, list[list[float]]] = {ours: [], theirs: []}
        with theirs.awake():
            jobs = load.mixed(effort.jobs, seed=0)
            capacity = len(jobs) / load.closed_loop(theirs, jobs, CLIENTS)
        for turn in range(effort.rounds):
            jobs = load.mixed(effort.jobs, seed=100 + turn)
            moments = load.poisson(len(jobs), OCCUPANCY * capacity, seed=200 + turn)
            for server in order((ours, theirs), turn):
                with server.awake():
                    latencies[server].append(load_tool.latencies(server, jobs, moments))
    bounds = {95: (at_most(0.6), at_most(0.35))}
    figures = []
    for percent in (50, 95, 99):
        mine = tuple(load.percentile(found, percent) for found in latencies[ours])
        their = tuple(load.percentile(found, percent) for found in latencies[theirs])
        limit, aim = bounds.get(percent, (None, None))
        name = f"p{percent} latency, Poisson arrivals"
        figures += [
            Figure(f"{name}, over the baseline's", ratios(mine, their), "×", limit, aim),
            Figure(f"{name}, ours", mine, "s"),
            Figure(f"{name}, baseline", their, "s"),
        ]
    return figures


SUITES = (
    Suite("throughput", "Many clients", THROUGHPUT_HOW, throughput),
    Suite("short-job", "A short job among long ones", SHORT_HOW, short_job),
    Suite("arrivals", "Random arrivals", ARRIVALS_HOW, arrivals),
)
