"""What the queue's operations take with a thousand and with a million jobs stored."""

import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import structlog

from benchmarks import postgres, stored
from benchmarks.figure import Bound, Figure, at_most
from benchmarks.suite import QUICK, Effort, Suite
from darkroom.config import RetentionSettings
from darkroom.ops.metrics import QueueMetrics
from darkroom.queue.leases import Leases
from darkroom.queue.retention import Retention
from darkroom.queue.store import Store
from darkroom.responses import EventType, JobStatus
from darkroom.storage import database
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database, Place
from darkroom.storage.files import FolderFiles
from darkroom.storage.records import NewEvent, NewJob

SIZES, QUICK_SIZES = (1_000, 100_000, 1_000_000), (1_000, 10_000)
ROUNDS, QUICK_ROUNDS = 40, 3
PAGE = 20
LIMIT = 1.5  # the largest ÷ the smallest
LIMITED = ("accept", "claim", "event append", "list")

HOW = f"""\
Databases of each kind with 10³, 10⁵ and 10⁶ ended jobs, their images and four events each, made by
SQL, and {stored.QUEUED} jobs that wait. PostgreSQL runs on the same machine with Debian's settings
and is reached over a Unix socket; both sync to the same disk. One thread calls the queue's code,
without HTTP. In each of {ROUNDS} rounds every operation is done once at each size, so that what
disturbs the machine disturbs all sizes. The ratios are of medians. Lists are pages of {PAGE}: of
all jobs, of the pictures of a client that has made an eighth of all, the same from three quarters
on, and of a client that came once, when half of the jobs were made. `retention` is a pass with a
limit of pictures that is exceeded by ten."""


class Queue:
    """A database with many jobs, and what can be done with it; each method once."""

    def __init__(self, place: Place, size: int, folder: Path) -> None:
        stored.fill(place, size, time.time())
        self.size = size
        self._database = Database(place)
        self._store = Store(self._database)
        self._leases = Leases(self._database, "w", lease_s=1e6, max_attempts=3)
        self._metrics = QueueMetrics(self._database, self._store.eta_errors)
        self._tokens = Tokens(self._database)
        self._files, self._orphans = FolderFiles(folder / "images"), FolderFiles(folder / "orphans")
        self._pictures = size * 9 // 10
        self._numbers = count(1)
        self._held: list[str] = []

    def operations(self) -> dict[str, Callable[[], object]]:
        """By name, in an order in which they can be done."""
        return {
            "accept": self._accept,
            "claim": self._claim,
            "event append": self._append,
            "finish": self._finish,
            "list": lambda: self._list(None),
            "gallery page": lambda: self._list("client1", JobStatus.SUCCEEDED),
            "gallery page far down": lambda: self._list(
                "client1", JobStatus.SUCCEEDED, self.size * 3 // 4
            ),
            "gallery page of a former client": lambda: self._list("early", JobStatus.SUCCEEDED),
            "a client's running jobs": lambda: self._store.jobs(
                "client1", before=None, limit=PAGE, status=JobStatus.RUNNING
            ),
            "event tail": lambda: self._store.events_after(self._store.last_event_id() - 10),
            "metrics": lambda: list(self._metrics.collect()),
            "devices": self._tokens.devices,
            "retention": self._retain,
        }

    def _accept(self) -> None:
        new = NewJob(
            "client1",
            "me",
            stored.REQUEST,
            stored.REQUEST.workload,
            (),
            f"g{next(self._numbers)}",
            None,
        )
        _, is_new = self._store.accept(new)
        assert is_new

    def _claim(self) -> None:
        claim = self._leases.claim(busy=False)
        assert claim is not None
        self._held.append(claim.job_id)

    def _append(self) -> None:
        job = self._held[-1]
        event = NewEvent(job, EventType.PROGRESS, {"step": 1, "steps": 20})
        self._leases.record([event], {job: (1, 20)})

    def _finish(self) -> None:
        self._leases.finish(self._held.pop(), JobStatus.SUCCEEDED)

    def _list(
        self, client: str | None, status: JobStatus | None = None, before: int | None = None
    ) -> None:
        page, _ = self._store.jobs(client, before=before, limit=PAGE, status=status)
        assert page

    def _retain(self) -> None:
        self._pictures -= 10
        settings = RetentionSettings(max_pictures=self._pictures, preview_days=0)
        swept = Retention(self._database, self._files, self._orphans, settings).sweep()
        assert swept.pictures == 10

    def close(self) -> None:
        self._database.close()


def measure(effort: Effort) -> list[Figure]:
    quick = effort == QUICK
    sizes, rounds = (QUICK_SIZES, QUICK_ROUNDS) if quick else (SIZES, ROUNDS)
    figures = []
    for kind in ("SQLite", "PostgreSQL"):
        if kind == "PostgreSQL" and not postgres.is_installed():
            continue
        with warnings_alone(), queues(kind, sizes) as filled:
            took = times(filled, rounds)
        figures += of(kind, sizes, took, limited=not quick)
    return figures


@contextmanager
def warnings_alone() -> Iterator[None]:
    """Logs nothing less than a warning meanwhile."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def queues(kind: str, sizes: tuple[int, ...]) -> Iterator[list[Queue]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-growth-")))
        if kind == "PostgreSQL":
            server = stack.enter_context(postgres.running(synced=True))
        filled = []
        for size in sizes:
            place: Place
            if kind == "PostgreSQL":
                place = server.migrated()
            else:
                place = folder / f"{size}.db"
                database.migrate(place)
            filled.append(Queue(place, size, folder / f"{size}"))
            stack.callback(filled[-1].close)
        yield filled


def times(filled: list[Queue], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Milliseconds of each operation at each size, one a round."""
    took: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(rounds + 1):  # the first one opens connections and reads caches
        for queue in filled if turn % 2 else filled[::-1]:
            for name, operation in queue.operations().items():
                began = time.perf_counter()
                operation()
                if turn:
                    took[name][queue.size].append((time.perf_counter() - began) * 1000)
    return took


def of(
    kind: str, sizes: tuple[int, ...], took: dict[str, dict[int, list[float]]], *, limited: bool
) -> list[Figure]:
    figures = []
    for name, by_size in took.items():
        figures += [
            Figure(f"{name}, {kind}, {size:,} jobs", tuple(by_size[size]), "ms") for size in sizes
        ]
        smallest, largest = figures[-len(sizes)].median, figures[-1].median
        limit: Bound | None = at_most(LIMIT) if limited and name in LIMITED else None
        title = f"{name}, {kind}, {sizes[-1]:,} ÷ {sizes[0]:,}"
        figures.append(Figure(title, (largest / smallest,), "×", limit))
    return figures


SUITE = Suite("growth", "Many stored jobs", HOW, measure)
