"""`python -m benchmarks.fleet URL`: how much a PostgreSQL database takes of a fleet.

How many jobs a second are accepted, claimed and ended, and how many events are written, by one to
eight workers at once. URL is of an empty database, as in `storage.database_url`; what is measured
stays in it. docs/scale-out.md calculates with these figures.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from sqlalchemy.engine import make_url

from benchmarks.stored import REQUEST
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.responses import EventType, JobStatus
from darkroom.storage.database import Database, Place, migrate
from darkroom.storage.records import NewEvent, NewJob

CLIENTS = 25
WORKERS = (1, 2, 4, 8)
BATCH = 20  # events of one write
PREVIEW = "data:image/webp;base64," + "A" * 800
SEEDS = count(1)


class Worker:
    """Does what a web process and a worker do to the database, with connections of its own."""

    def __init__(self, place: Place, name: str) -> None:
        self.database = Database(place)
        self._store = Store(self.database)
        self._leases = Leases(self.database, name, lease_s=3600, max_attempts=3)
        self._claimed: list[str] = []

    def accept(self, jobs: int) -> int:
        for _ in range(jobs):
            number = next(SEEDS)
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
        workers = [Worker(place, f"{number}-{each}") for each in range(number)]
        with ThreadPoolExecutor(number) as pool:
            for name, step in STEPS.items():
                began = time.perf_counter()
                done = sum(pool.map(step, workers, [jobs // number] * number))
                found[name][number] = round(done / (time.perf_counter() - began), 1)
        for worker in workers:
            worker.database.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("url", type=make_url)
    parser.add_argument("--jobs", type=int, default=400, help="for each number of workers")
    arguments = parser.parse_args()
    migrate(arguments.url)
    print(json.dumps(measure(arguments.url, arguments.jobs), indent=1))


if __name__ == "__main__":
    main()
