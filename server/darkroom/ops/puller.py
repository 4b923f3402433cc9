"""Downloads models in processes of their own, which web starts, watches and ends.

Web calls no hub: what a hub answers is parsed, and its files are written and hashed, in a process
that takes no time from web's, whose death loses nothing, and which can be ended at once.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from darkroom.catalog import downloads, removal
from darkroom.catalog.downloads import Hubs, Plan, Wanted
from darkroom.catalog.model_entry import NumberBytes
from darkroom.errors import DarkroomError, Message, message
from darkroom.ops.pull_messages import SAID, Arrived, Asked, Planned, Progress, Refused, Said
from darkroom.queue.pulls import PullJob, Pulls, UnknownPullError
from darkroom.responses import JobStatus, Problem
from darkroom.storage import database
from darkroom.storage.database import DatabaseUnavailableError

log = structlog.get_logger()

COMMAND = (sys.executable, "-m", "darkroom.ops.pull_process")
LOOK_S = 2.0  # between two looks at what another web process was asked for
RECORD_S = 1.0
PLAN_S = 60.0  # one takes a second or three, on a busy machine more
PLANS = 2  # at once; each holds one of web's threads
MAX_RESTARTS = 3  # of a process that dies without bringing anything

INTERRUPTED = message(
    "pull_interrupted", "the download was interrupted again and again; try again to go on"
)


class PlanError(DarkroomError):
    """A download cannot be planned.

    Attributes:
        reason: see `Refused`; `busy` if too many are being planned.
    """

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(said)
        self.reason, self.said = reason, said


@dataclass(frozen=True)
class Planning:
    """A plan with what the catalog says of it; `memory_bytes` of each worker that was named."""

    plan: Plan
    family: str
    lacks: str | None
    memory_bytes: tuple[int, ...]


class Puller:
    """Works on the downloads that were asked for, one after the other.

    Of several web processes one does, the others wait for it to end.

    Args:
        pulls: what was asked for.
        hubs: where from.
        lock: the file that says who works on them.
    """

    def __init__(self, pulls: Pulls, hubs: Hubs, lock: Path) -> None:
        self._pulls, self._hubs, self._lock = pulls, hubs, lock
        self._stopped, self._bell = threading.Event(), threading.Event()
        self._planning = threading.Semaphore(PLANS)
        self._thread: threading.Thread | None = None

    def plan(self, wanted: Wanted, workers: Sequence[NumberBytes]) -> Planning:
        """Plan a download. Takes seconds.

        Args:
            wanted: what to download.
            workers: what numbers take in the memory of each.

        Raises:
            PlanError: it cannot be downloaded.
        """
        if not self._planning.acquire(blocking=False):
            raise PlanError("busy", "other downloads are being looked up; try again in a moment")
        asked = Asked(action="plan", wanted=wanted, hubs=self._hubs, workers=tuple(workers))
        deadline = time.monotonic() + PLAN_S
        try:
            with _running(asked) as said:
                while (left := deadline - time.monotonic()) > 0:
                    with suppress(queue.Empty):
                        match said.get(timeout=left):
                            case Planned() as found:
                                return _planning(found)
                            case Refused() as refused:
                                raise PlanError(refused.reason, _message(refused))
                            case None:
                                raise PlanError("fault", "the process that asks the hub ended")
        finally:
            self._planning.release()
        raise PlanError(
            "hub", message("hub_slow", "the hub takes too long to answer; try again later")
        )

    def wake(self) -> None:
        """Look now for what is to be done."""
        self._bell.set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="puller", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the download that runs; the next start goes on with it."""
        self._stopped.set()
        self._bell.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with database.exclusively(self._lock) as alone:
                    if alone:
                        self._work()
            except OSError as error:  # of the lock's file, where the disk is full
                log.warning("downloads wait for the disk", reason=str(error))
            self._stopped.wait(LOOK_S)

    def _work(self) -> None:
        """Work on downloads until it is stopped, or cannot go on for now."""
        try:
            self._pulls.put_back()  # those of a process that died
            removal.sweep(self._hubs.data_dir)
            while not self._stopped.is_set():
                self._bell.clear()
                job = self._pulls.begin()
                if job is None:
                    self._bell.wait(LOOK_S)
                    continue
                self._pull(job)
        except DatabaseUnavailableError as error:
            log.warning("downloads wait for the database", reason=str(error))
        except Exception:
            log.exception("downloads were interrupted")

    def _pull(self, job: PullJob) -> None:
        if job.target.exists():  # web died between its arrival and the record
            self._pulls.end(job.id, JobStatus.SUCCEEDED)
            return
        asked = Asked(action="fetch", wanted=job.wanted, hubs=self._hubs)
        log.info("download began", source=job.wanted.source)
        with _running(asked) as said, suppress(UnknownPullError):
            ended = self._watch(job, said)
        match ended:
            case Arrived():
                log.info("download arrived", source=job.wanted.source)
                self._pulls.end(job.id, JobStatus.SUCCEEDED)
            case Refused():
                log.warning("download failed", source=job.wanted.source, reason=ended.detail)
                self._pulls.end(job.id, JobStatus.FAILED, _problem(_message(ended), ended.reason))
            case JobStatus.CANCELLED:
                downloads.discard(job.unfinished)
                self._pulls.end(job.id, JobStatus.CANCELLED)
            case JobStatus.QUEUED:  # web stops
                self._pulls.put_back(job.id)
            case None if job.restarts + 1 < MAX_RESTARTS:
                log.warning("download's process died", source=job.wanted.source)
                self._pulls.put_back(job.id, died=True)
            case None:
                self._pulls.end(job.id, JobStatus.FAILED, _problem(INTERRUPTED, "pull"))

    def _watch(self, job: PullJob, said: "queue.Queue[Said | None]") -> Said | JobStatus | None:
        """Record a download's progress until it ends, and return how; None if its process died."""
        speed = Speed(time.monotonic)
        speed.note(job.done_bytes)
        recorded = 0.0
        while True:
            if self._stopped.is_set():
                return JobStatus.QUEUED
            heard: Said | None = Progress(done_bytes=-1)
            with suppress(queue.Empty):
                heard = said.get(timeout=RECORD_S)
            if not isinstance(heard, Progress):
                return heard
            if heard.done_bytes >= 0:
                speed.note(heard.done_bytes)
            if self._bell.is_set() or time.monotonic() - recorded >= RECORD_S:
                self._bell.clear()
                recorded = time.monotonic()
                if self._pulls.progress(job.id, speed.done_bytes, speed.per_second):
                    return JobStatus.CANCELLED


class Speed:
    """How fast bytes came over the last seconds."""

    WINDOW_S = 10.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: list[tuple[float, int]] = []

    def note(self, done_bytes: int) -> None:
        """Note how many have come until now."""
        now = self._clock()
        self._seen = [each for each in self._seen if each[0] > now - self.WINDOW_S]
        self._seen.append((now, done_bytes))

    @property
    def done_bytes(self) -> int:
        return self._seen[-1][1] if self._seen else 0

    @property
    def per_second(self) -> float | None:
        """Bytes in a second; None until it is known."""
        (then, before), (now, after) = (self._seen or [(0.0, 0)])[0], (self._seen or [(0.0, 0)])[-1]
        return (after - before) / (now - then) if now > then and after >= before else None


@contextmanager
def _running(asked: Asked) -> "Iterator[queue.Queue[Said | None]]":
    """Context with what a process says that does what is asked; None when it ends.

    The process is killed at the end.
    """
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        text=True,
    )
    assert process.stdin is not None
    heard: queue.Queue[Said | None] = queue.Queue()
    threading.Thread(target=_listen, args=(process, heard), daemon=True).start()
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(asked.model_dump_json() + "\n")
            process.stdin.flush()
        yield heard
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()


def _listen(process: "subprocess.Popen[str]", heard: "queue.Queue[Said | None]") -> None:
    """Pass on what a process says, and None at its end."""
    assert process.stdout is not None
    with process.stdout, suppress(ValueError):  # a line that was cut short by its death
        for line in process.stdout:
            heard.put(SAID.validate_json(line))
    heard.put(None)


def _planning(found: Planned) -> Planning:
    plan = Plan(
        pinned=found.pinned,
        kind=found.kind,
        name=found.name,
        title=found.title,
        target=Path(found.target),
        unfinished=Path(found.unfinished),
        files=found.files,
        total_bytes=found.total_bytes,
    )
    return Planning(plan, found.family, found.lacks, found.memory_bytes)


def _message(refused: Refused) -> str:
    return Message(refused.detail, refused.code, refused.values)


def _problem(said: str, reason: str) -> Problem:
    status = {"hub": 502, "room": 507}.get(reason, 422)
    kind = {"hub": "hub", "room": "disk-full"}.get(reason, "pull")
    return Problem(
        type=f"urn:darkroom:problem:{kind}",
        title="The download failed",
        status=status,
        detail=said,
    )
