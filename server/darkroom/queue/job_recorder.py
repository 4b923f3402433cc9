"""What becomes of the jobs that a worker runs: the engine's events, as events and records."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field

import structlog

from darkroom.engine.base import (
    Engine,
    EngineEvent,
    Failed,
    Finished,
    ImageReady,
    JobWarning,
    Previewed,
    Started,
    Stepped,
)
from darkroom.errors import Message, fault, message, without_paths
from darkroom.queue.leases import LeaseLostError, Leases
from darkroom.queue.picture_writer import PictureWriter, Records
from darkroom.queue.running_job import Running
from darkroom.queue.worker_metrics import Meters
from darkroom.queue.worker_models import WorkerModels
from darkroom.responses import SOURCE_GONE, EventType, JobStatus, Problem
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.files import FilesUnavailableError
from darkroom.storage.records import Claim, NewEvent, preview_data

log = structlog.get_logger()

RETRY_S = 1.0  # between attempts to write a result
MAX_PENDING_EVENTS = 2000  # kept in memory while the database cannot be used

PROBLEMS = {
    "out-of-memory": ("Not enough memory", 507),
    "model": ("The model cannot be loaded", 500),
    "request": ("The request cannot be done", 422),
    "engine": ("The picture could not be developed", 500),
    "storage": ("The picture could not be stored", 507),
    "source": (SOURCE_GONE, 410),
}


@dataclass(eq=False)
class Progress:
    """Events and steps that are not written yet. Losing some costs nobody a picture.

    Attributes:
        ring_web: called when some were written.
        every_s: the time between two writes.
        clock: seconds, monotonic.
    """

    leases: Leases
    _: KW_ONLY
    ring_web: Callable[[], None]
    every_s: float
    clock: Callable[[], float]
    _events: list[NewEvent] = field(default_factory=list, init=False)
    _steps: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    _flushed_at: float = field(default=float("-inf"), init=False)

    def add(self, event: NewEvent) -> None:
        """Have an event written with the next batch."""
        self._events.append(event)

    def step(self, job_id: str, step: int, steps: int) -> None:
        """Have the steps that a job has done, of so many, written with the next batch."""
        self._steps[job_id] = (step, steps)

    def flush_if_due(self) -> None:
        """Write if the last time was `every_s` ago."""
        if self.clock() - self._flushed_at >= self.every_s:
            self.flush()

    def flush(self) -> None:
        """Write now; what cannot be written is kept for the next call."""
        self._flushed_at = self.clock()
        if not self._events and not self._steps:
            return
        try:
            self.leases.record(self._events, self._steps)
        except DatabaseUnavailableError as error:
            log.warning("progress cannot be written", reason=str(error))
            self._events = self._events[-MAX_PENDING_EVENTS:]
        else:
            self._events, self._steps = [], {}
            self.ring_web()


@dataclass(eq=False, kw_only=True)
class JobRecorder:
    """Records what happens to claimed jobs. Used from the worker's thread.

    Methods raise DatabaseUnavailableError if the worker has to stop before the database can be
    used again.

    Attributes:
        stopping: set when the worker has to stop.
        running: the claimed jobs, by id, until their ends are recorded.
        has_room: whether a job has ended since this was last set to False.
    """

    leases: Leases
    engine: Engine
    models: WorkerModels
    pictures: PictureWriter
    progress: Progress
    meters: Meters
    ring_web: Callable[[], None]
    pulse: Callable[[], None]
    clock: Callable[[], float]
    stopping: threading.Event
    running: dict[str, Running] = field(default_factory=dict, init=False)
    has_room: bool = field(default=True, init=False)

    def begin(self, claim: Claim) -> Running:
        """Take over a job that was claimed."""
        running = self.running[claim.job_id] = Running(claim)
        self.models.used(claim.workload.model, claim.client)
        return running

    def in_engine(self) -> dict[str, Running]:
        """The jobs that the engine works on, by id: not those whose pictures are only stored."""
        return {
            id_: running
            for id_, running in self.running.items()
            if running.loaded and running.ending is None
        }

    def models_in_use(self) -> set[str]:
        """The models of the jobs in the engine."""
        return {running.claim.workload.model for running in self.in_engine().values()}

    def handle(self, event: EngineEvent) -> None:
        running = self.running.get(event.job_id)
        if running is not None and running.ending is None:  # else an earlier event ended it
            with self._failing(running):
                self._pass_on(event, running)

    @contextlib.contextmanager
    def _failing(self, running: Running) -> Iterator[None]:
        """Fail a job for what is raised while it is handled, but for errors of the database."""
        try:
            yield
        except LeaseLostError:
            self._lost(running)
        except OSError as error:
            log.exception("picture not stored", **running.ids)
            detail = message(
                "not_stored",
                "the picture could not be stored: {reason}",
                reason=str(error.strerror),
            )
            self.fail(running, "storage", detail)
        except (ValueError, TypeError, LookupError) as error:
            # A bug in the handling of this job must not end the other jobs.
            log.exception("job failed", **running.ids)
            self.fail(running, "engine", fault(error))

    def _pass_on(self, event: EngineEvent, running: Running) -> None:
        job_id = event.job_id
        match event:
            case Started(steps=steps):
                running.steps = steps
                running.started_at = self.clock()
                self.progress.add(
                    NewEvent(job_id, EventType.STARTED, {"attempt": running.claim.attempt})
                )
                self.progress.step(job_id, 0, steps)
                self.progress.flush()
            case Stepped(step=step, steps=steps):
                running.step, running.steps = step, steps
                eta = running.eta_seconds(self.clock())
                data: dict[str, object] = {"step": step, "steps": steps, "eta_seconds": eta}
                self.progress.add(NewEvent(job_id, EventType.PROGRESS, data))
                self.progress.step(job_id, step, steps)
            case Previewed(webp=webp, index=index, step=step, steps=steps):
                shown = preview_data(webp, index, step, steps)
                self.progress.add(NewEvent(job_id, EventType.PREVIEW, shown))
            case JobWarning(note=note):
                said = note if isinstance(note, Message) else without_paths(note)
                self.progress.flush()
                self._persist(lambda: self.leases.add_note(job_id, said))
                self.ring_web()
            case ImageReady():
                self.pictures.add(running, event)
            case Finished():
                self._end(running, JobStatus.SUCCEEDED)
            case Failed(kind=kind, detail=detail):
                self.fail(running, kind, detail)

    def record_pictures(self) -> None:
        """Record the pictures stored since the last call: every record has its file.

        Jobs that have waited for the last of them end.
        """
        for running, stored in self.pictures.stored():
            if self.running.get(running.claim.job_id) is not running:
                continue  # its lease was lost
            if isinstance(stored.exception(), FilesUnavailableError | DatabaseUnavailableError):
                continue  # the worker ends, and the job runs again
            running.unstored -= 1
            with self._failing(running):
                self._record(running, stored.result())
            self._finish_if_stored(running)

    def _record(self, running: Running, records: Records) -> None:
        began = self.clock()
        self.progress.flush()
        self._persist(lambda: self.leases.add_image(*records))
        running.other_seconds += self.clock() - began
        self.ring_web()

    def _persist(self, write: Callable[[], None]) -> None:
        """Call `write` again and again until the database can be used.

        Raises:
            DatabaseUnavailableError: the worker has to stop before that.
            LeaseLostError: raised by `write`.
        """
        while True:
            self.pulse()
            try:
                return write()
            except DatabaseUnavailableError as error:
                log.warning("a result cannot be written yet", reason=str(error))
                if self.stopping.wait(RETRY_S):
                    raise

    def cancel(self, job_id: str) -> None:
        running = self.running.get(job_id)
        if running is not None:
            self._end(running, JobStatus.CANCELLED)

    def fail(self, running: Running, kind: str, detail: str) -> None:
        title, status = PROBLEMS[kind]
        problem = Problem(
            type=f"urn:darkroom:problem:{kind}",
            title=title,
            status=status,
            detail=without_paths(detail),
        )
        self._end(running, JobStatus.FAILED, problem)

    def _end(self, running: Running, status: JobStatus, problem: Problem | None = None) -> None:
        """End a job once its pictures are recorded.

        One that ends already only changes from succeeding to failing: a picture is not stored.
        """
        already = None if running.ending is None else running.ending[0]
        if already is None or (already, status) == (JobStatus.SUCCEEDED, JobStatus.FAILED):
            running.ending = (status, problem)
            self.models.used(running.claim.workload.model, running.claim.client)
            self.engine.cancel(running.claim.job_id)
            self.has_room = True  # there is room for another job
        self._finish_if_stored(running)

    def _finish_if_stored(self, running: Running) -> None:
        """End a job whose last picture is recorded, and remove it from this worker."""
        job_id = running.claim.job_id
        if running.ending is None or running.unstored or job_id not in self.running:
            return
        status, problem = running.ending
        self.progress.flush()
        try:
            self._persist(lambda: self.leases.finish(job_id, status, problem))
        except LeaseLostError:
            self._lost(running)
            return
        self._learn_speed(running, status)
        kind = {} if problem is None else {"kind": problem.type.rpartition(":")[2]}
        say = log.info if problem is None else log.warning
        say(f"job {status.value}", images=running.claim.workload.images, **kind, **running.ids)
        self._drop(running)

    def _learn_speed(self, running: Running, status: JobStatus) -> None:
        measured = running.measured() if status is JobStatus.SUCCEEDED else None
        if measured is not None:
            with contextlib.suppress(DatabaseUnavailableError):  # later jobs are measured too
                self.leases.learn_speed(*measured)

    def _lost(self, running: Running) -> None:
        log.warning("lease lost", **running.ids)
        self.meters.lease_lost()
        self._drop(running)

    def _drop(self, running: Running) -> None:
        """Remove a job from this worker."""
        self.engine.cancel(running.claim.job_id)
        self.running.pop(running.claim.job_id, None)
        self.has_room = True  # there is room for another job
        self.ring_web()
