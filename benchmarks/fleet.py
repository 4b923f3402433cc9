"""`python -m benchmarks.fleet URL`: how much a PostgreSQL database takes of a fleet.

How many jobs a second are accepted, claimed and ended, and how many events are written, by one to
eight workers at once. URL is of an empty database, as in `storage.database_url`; what is measured
stays in it. docs/scale-out.md calculates with these figures.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

from benchmarks.stored import REQUEST
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.responses import EventType, JobStatus
from darkroom.storage.database import Database, Place, migrate
from darkroom.storage.records import NewEvent, NewJob

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

CLIENTS = 25
WORKERS = (1, 2, 4, 8)
BATCH = 20  # events of one write
PREVIEW = "data:image/webp;base64," + "A" * 800
SEEDS_EACH = 1_000_000  # jobs of a worker, at most
TIMEOUT_S = 600


class Worker:
    """Does what a web process and a worker do to the database, with connections of its own."""

    def __init__(self, place: Place, name: str, first_seed: int) -> None:
        self._seeds = count(first_seed)
        self.database = Database(place)
        self._store = Store(self.database)
        self._leases = Leases(self.database, name, lease_s=3600, max_attempts=3)
        self._claimed: list[str] = []

    def accept(self, jobs: int) -> int:
        for _ in range(jobs):
            number = next(self._seeds)
            asked = REQUEST.model_copy(update={"seed": number})
            client = f"client-{number % CLIENTS}"
            self._store.accept(NewJob(client, client, asked, asked.workload, (), f"{number}", None))
        return jobs

    def claim(self, jobs: int) -> int:
        claims = [self._leases.claim(busy=False) for _ in range(jobs)]
        self._claimed = [claim.job_id for claim in claims if claim is not None]
        return len(self._claimed)

    def record(self, jobs: int) -> int:
        data: dict[str, object] = {"step": 1, "steps": 20, "preview": PREVIEW}
        ids = self._claimed[:BATCH]
        for _ in range(jobs):
            events = [NewEvent(job, EventType.PROGRESS, data) for job in ids]
            self._leases.record(events, dict.fromkeys(ids, (1, 20)))
        return jobs

    def end(self, _jobs: int) -> int:
        for job in self._claimed:
            self._leases.finish(job, JobStatus.SUCCEEDED)
        return len(self._claimed)


STEPS: dict[str, Callable[[Worker, int], int]] = {
    "jobs accepted/s": Worker.accept,
    "jobs claimed/s": Worker.claim,
    f"writes of {BATCH} events/s": Worker.record,
    "jobs ended/s": Worker.end,
}


def measure(place: Place, jobs: int) -> dict[str, dict[int, float]]:
    """Rates by what is done, and by the number of workers that do it at once."""
    found: dict[str, dict[int, float]] = {name: {} for name in STEPS}
    for number in WORKERS:
        for name, rate in zip(STEPS, _rates(place, jobs, number), strict=True):
            found[name][number] = round(rate, 1)
    return found


def _rates(place: Place, jobs: int, number: int) -> list[float]:
    """Of each step, by so many processes that begin each together."""
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(number), context.Queue()
    processes = [
        context.Process(
            target=_work,
            args=(place, f"{number}-{each}", jobs // number, each, together, results),
        )
        for each in range(number)
    ]
    for process in processes:
        process.start()
    every = [results.get(timeout=TIMEOUT_S) for _ in processes]
    for process in processes:
        process.join()
    return [
        sum(done for done, _, _ in step)
        / (max(ended for _, _, ended in step) - min(began for _, began, _ in step))
        for step in zip(*every, strict=True)
    ]


def _work(
    place: Place, name: str, jobs: int, number: int, together: "Barrier", results: "Queue[Any]"
) -> None:
    """What one process does; it puts how much was done, from when to when, of each step."""
    worker = Worker(place, name, SEEDS_EACH * number)
    worker.claim(0)  # connects
    found = []
    for step in STEPS.values():
        together.wait(TIMEOUT_S)
        began = time.monotonic()
        done = step(worker, jobs)
        found.append((done, began, time.monotonic()))
    worker.database.close()
    results.put(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("url", type=make_url)
    parser.add_argument("--jobs", type=int, default=400, help="for each number of workers")
    arguments = parser.parse_args()
    migrate(arguments.url)
    print(json.dumps(measure(arguments.url, arguments.jobs), indent=1))


if __name__ == "__main__":
    main()
