"""How long a POST takes to be accepted while a thousand jobs are queued."""

import time

from benchmarks import load
from benchmarks.figure import Figure
from benchmarks.servers import Server, darkroom
from benchmarks.suite import Effort, Suite

QUEUED = 1000
SETTINGS = {
    "DARKROOM_AUTH__REQUESTS_PER_MINUTE": "1000000",
    "DARKROOM_QUEUE__MAX_PENDING": str(2 * QUEUED),
    "DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": str(2 * QUEUED),
    "DARKROOM_QUEUE__LEASE_S": "86400",  # a paused worker keeps its job and its place
}

HOW = f"""\
The worker makes a few pictures, so that speeds are known, and is stopped with SIGSTOP. {QUEUED}
jobs of mixed kinds are sent with `Prefer: respond-async`; then single `POST /txt2img` of the same
sort are timed, one after the other, from the first byte sent to the answer, which holds position
and estimate. The median of each round is a value."""


def accepting(effort: Effort) -> list[Figure]:
    with darkroom(**SETTINGS) as server:
        server.until("/readyz")
        load.closed_loop(server, load.mixed(4, seed=0), 2)
        worker = server.child("worker")
        worker.suspend()
        try:
            empty = tuple(_accept(server, seed) for seed in range(effort.pictures))
            for seed in range(QUEUED):
                _accept(server, seed)
            full = tuple(_accept(server, seed) for seed in range(5 * effort.pictures))
        finally:
            worker.resume()
            server.process.terminate()
    return [
        Figure("accepting a POST, few queued", empty, "ms"),
        Figure(f"accepting a POST, {QUEUED} queued", full, "ms"),
    ]


def _accept(server: Server, seed: int) -> float:
    """Milliseconds until a job is accepted."""
    job = load.txt2img(seed % 20 + 1, seed)
    began = time.perf_counter()
    answer = server.http.post("/txt2img", json=job.body, headers={"prefer": "respond-async"})
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took * 1000


SUITE = Suite("accepting", "Accepting while many wait", HOW, accepting)
