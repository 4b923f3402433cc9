"""The worker's loop: fetch jobs, run the engine, record its events and results."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from darkroom.config import QueueSettings
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
from darkroom.errors import without_paths
from darkroom.images.codec import PNG_LEVEL
from darkroom.queue.affinity import Affinity, Models
from darkroom.queue.doorbell import Doorbell
from darkroom.queue.leases import LeaseLostError, Leases
from darkroom.queue.picture_writer import PictureWriter
from darkroom.queue.running_job import Running, share_out
from darkroom.queue.worker_metrics import Meters
from darkroom.responses import SOURCE_GONE, EventType, JobStatus, Problem
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.files import Files
from darkroom.storage.records import NewEvent, preview_data
from darkroom.storage.tables import ImageRow

log = structlog.get_logger()

RETRY_S = 1.0  # between attempts to write a result
MAX_PENDING_EVENTS = 2000  # kept in memory while the database cannot be used
METRICS_EVERY_S = 5.0  # longest time between two records of the worker's metrics

PROBLEMS = {
    "out-of-memory": ("Not enough memory", 507),
    "model": ("The model cannot be loaded", 500),
    "request": ("The request cannot be done", 422),
    "engine": ("The picture could not be developed", 500),
    "storage": ("The picture could not be stored", 507),
    "source": (SOURCE_GONE, 410),
}


@dataclass(eq=False, kw_only=True)
class Dispatcher:
    """Runs queued jobs on one engine until it is stopped.

    Attributes:
        engine: used only from the thread that calls `run`.
        bell: rings when the queue has changed.
        ring_web: wakes the web process to read new events.
        device: a description of what the engine runs on.
        max_in_flight: the most jobs in the engine at a time.
        png_level: of stored PNG files, see `codec.encode`.
        pulse: called in every turn of the loop, also while idle, for the watchdog.
        clock: seconds, monotonic.
        ready: whether the default model is loaded.
    """

    leases: Leases
    files: Files
    engine: Engine
    bell: Doorbell
    ring_web: Callable[[], None]
    settings: QueueSettings
    device: str
    max_in_flight: int
    png_level: int = PNG_LEVEL
    pulse: Callable[[], None] = lambda: None
    meters: Meters = field(default_factory=Meters)
    clock: Callable[[], float] = time.monotonic
    ready: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._stop_by = float("inf")
        self._running: dict[str, Running] = {}
        self._affinity = Affinity(self.settings.affinity_s, self.clock)
        self._pictures = PictureWriter(self.files, self.png_level, self.bell.ring)
        self._events: list[NewEvent] = []  # not written yet
        self._steps: dict[str, tuple[int, int]] = {}  # by job, done and total, not written yet
        self._flushed_at = float("-inf")
        self._polled_at = float("-inf")
        self._poll_now = True  # the queue may have changed without a ring

    def stop(self) -> None:
        """Stop when the jobs in flight are done, or after a timeout. From any thread.

        Jobs that are not done by then go back to the queue.
        """
        if not self._stopping.is_set():
            self._stop_by = self.clock() + self.settings.shutdown_timeout_s
        self._stopping.set()

    def run(self) -> None:
        """Run jobs until `stop`.

        Raises:
            OSError: the default model cannot be loaded.
            DatabaseUnavailableError: a result could not be written before the worker had to stop.
        """
        interrupted = self.leases.recover_own()
        if interrupted:
            log.warning("interrupted jobs were queued again", jobs=interrupted)
            self.ring_web()
        heartbeats = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
        heartbeats.start()
        try:
            self.engine.warm_up()
            self.ready = True
            self._heartbeat()
            self.ring_web()
            log.info("ready", worker=self.leases.worker, device=self.device)
            while not self._stopping.is_set() or (self._running and self.clock() <= self._stop_by):
                self._turn()
            self._flush()
            self._pictures.close(finish=False)
            self._record_pictures()
            # Not after an error: the jobs then count as interrupted, so that a job that crashes
            # the worker each time fails in the end.
            self._give_back()
        except Exception:
            self._pictures.close(finish=True)  # what the engine had made is not lost with it
            self._record_pictures()
            raise
        finally:
            self._stopping.set()
            heartbeats.join()
            self.ring_web()

    def _give_back(self) -> None:
        try:
            returned = self.leases.give_back()
        except DatabaseUnavailableError as error:
            log.warning("jobs not put back; they count as interrupted", reason=str(error))
        else:
            if returned:
                log.info("jobs put back", jobs=returned)

    def _send_heartbeats(self) -> None:
        """Extend the leases from a separate thread, because ticks and model loads can be long."""
        while True:
            try:
                self._heartbeat()
            except Exception:
                log.exception("heartbeat failed")
            if self._stopping.wait(min(self.leases.lease_s / 4, METRICS_EVERY_S)):
                return

    def _heartbeat(self) -> None:
        self.leases.heartbeat(
            ready=self.ready,
            device=self.device,
            max_in_flight=self.max_in_flight,
            metrics=self.meters.text(),
        )

    def _turn(self) -> None:
        """Poll the queue if it may have changed, run one tick, handle its events."""
        self.pulse()
        self._record_pictures()
        rung = self._wait()
        if rung or self._poll_now or self.clock() - self._polled_at >= self.settings.poll_s:
            self._poll()
        self._tick()
        if self.clock() - self._flushed_at >= self.settings.flush_s:
            self._flush()

    def _wait(self) -> bool:
        """Wait for a ring while there is nothing to do. Returns whether there was one.

        A picture that is stored rings too. While the loop waits for one, the time is charged to
        the picture's job; while the engine goes on meanwhile, it costs nobody anything.
        """
        if self._poll_now or (self._in_engine() and not self._pictures.is_behind):
            return self.bell.wait(0)
        began = self.clock()
        rung = self.bell.wait(self.settings.poll_s)
        slow = self._pictures.oldest
        if slow is not None:
            slow.other_seconds += self.clock() - began
        return rung

    def _tick(self) -> None:
        """Have the engine do one call, and handle its events."""
        working = self._in_engine()
        if not working:
            self.meters.idle()
            return
        if self._pictures.is_behind:
            return
        began = self.clock()
        events = self.engine.tick()
        seconds = self.clock() - began
        self.meters.ticked(seconds, len(working))
        share_out(seconds, events, working)
        for event in events:
            self._handle(event)

    def _in_engine(self) -> dict[str, Running]:
        """The jobs that the engine works on, by id: not those whose pictures are only stored."""
        return {id_: running for id_, running in self._running.items() if running.ending is None}

    def _poll(self) -> None:
        """Read cancel requests, and fetch jobs."""
        self._polled_at = self.clock()
        self._poll_now = False
        try:
            for job_id in self.leases.cancel_requests():
                self._cancel(job_id)
            if not self._stopping.is_set():
                self._claim()
        except DatabaseUnavailableError as error:
            log.warning("the queue cannot be read", reason=str(error))  # polled again

    def _claim(self) -> None:
        """Fetch jobs until the engine is full. An isolated job stays alone in it."""
        self.leases.recover_lapsed()
        while len(self._in_engine()) < self.max_in_flight:
            if any(running.claim.isolated for running in self._running.values()):
                return
            models = self._models()
            claim = self.leases.claim(
                busy=bool(self._running),
                pick=lambda due, others: self._affinity.next(due, others, models),  # noqa: B023
            )
            if claim is None:
                return
            running = Running(claim)
            self._affinity.used(claim.workload.model, claim.client)
            self._running[claim.job_id] = running
            try:
                job = running.load(self.files)
            except FileNotFoundError:
                self._fail(running, "source", "the file of a source picture is gone")
            except OSError as error:
                reason = error.strerror or "it is not a picture"
                self._fail(running, "source", f"a source picture cannot be read: {reason}")
            except ValueError as error:
                self._fail(running, "source", f"a source picture cannot be read: {error}")
            else:
                log.info("job claimed", attempt=claim.attempt, **running.ids)
                self.engine.submit(job)

    def _models(self) -> Models:
        in_use = {running.claim.workload.model for running in self._in_engine().values()}
        return Models(self.engine.resident(), self.engine.fits, in_use)

    def _handle(self, event: EngineEvent) -> None:
        running = self._running.get(event.job_id)
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
            self._fail(running, "storage", f"the picture could not be stored: {error.strerror}")
        except (ValueError, TypeError, LookupError) as error:
            # A bug in the handling of this job must not end the other jobs.
            log.exception("job failed", **running.ids)
            self._fail(running, "engine", f"{type(error).__name__}: {error}")

    def _pass_on(self, event: EngineEvent, running: Running) -> None:
        job_id = event.job_id
        match event:
            case Started(steps=steps):
                running.steps = steps
                running.started_at = self.clock()
                self._events.append(
                    NewEvent(job_id, EventType.STARTED, {"attempt": running.claim.attempt})
                )
                self._steps[job_id] = (0, steps)
                self._flush()
            case Stepped(step=step, steps=steps):
                running.step, running.steps = step, steps
                eta = running.eta_seconds(self.clock())
                data: dict[str, object] = {"step": step, "steps": steps, "eta_seconds": eta}
                self._events.append(NewEvent(job_id, EventType.PROGRESS, data))
                self._steps[job_id] = (step, steps)
            case Previewed(webp=webp):
                self._events.append(NewEvent(job_id, EventType.PREVIEW, preview_data(webp)))
            case JobWarning(note=note):
                self._flush()
                self._persist(lambda: self.leases.add_note(job_id, without_paths(note)))
                self.ring_web()
            case ImageReady():
                self._pictures.add(running, event)
            case Finished():
                self._end(running, JobStatus.SUCCEEDED)
            case Failed(kind=kind, detail=detail):
                self._fail(running, kind, detail)

    def _record_pictures(self) -> None:
        """Record the pictures stored since the last call: every record has its file.

        Jobs that have waited for the last of them end.
        """
        for running, stored in self._pictures.stored():
            if self._running.get(running.claim.job_id) is not running:
                continue  # its lease was lost
            running.unstored -= 1
            with self._failing(running):
                self._record(running, stored.result())
            self._finish_if_stored(running)

    def _record(self, running: Running, row: ImageRow) -> None:
        began = self.clock()
        self._flush()
        self._persist(lambda: self.leases.add_image(row))
        running.other_seconds += self.clock() - began
        self.ring_web()

    def _flush(self) -> None:
        """Write progress; what cannot be written is kept for the next call."""
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
                if self._stopping.wait(RETRY_S):
                    raise

    def _cancel(self, job_id: str) -> None:
        running = self._running.get(job_id)
        if running is not None:
            self._end(running, JobStatus.CANCELLED)

    def _fail(self, running: Running, kind: str, detail: str) -> None:
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
            self._affinity.used(running.claim.workload.model, running.claim.client)
            self.engine.cancel(running.claim.job_id)
            self._poll_now = True  # there is room for another job
        self._finish_if_stored(running)

    def _finish_if_stored(self, running: Running) -> None:
        """End a job whose last picture is recorded, and remove it from this worker."""
        job_id = running.claim.job_id
        if running.ending is None or running.unstored or job_id not in self._running:
            return
        status, problem = running.ending
        self._flush()
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
        self._running.pop(running.claim.job_id, None)
        self._poll_now = True  # there is room for another job
        self.ring_web()
