"""The worker's loop: fetch jobs, run the engine, record its events and results."""

import contextlib
import threading
import time
from collections.abc import Callable
from hashlib import sha256

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
from darkroom.images import codec
from darkroom.queue.doorbell import Doorbell
from darkroom.queue.leases import LeaseLostError, Leases
from darkroom.queue.progress import ProgressWriter
from darkroom.queue.running_job import Running, share_out
from darkroom.queue.worker_metrics import Meters
from darkroom.requests import OutputFormat
from darkroom.responses import EventType, JobStatus, Problem
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.files import Files
from darkroom.storage.records import preview_data
from darkroom.storage.tables import ImageRow

log = structlog.get_logger()

METRICS_EVERY_S = 5.0  # longest time between two records of the worker's metrics

PROBLEMS = {
    "out-of-memory": ("Not enough memory", 507),
    "model": ("The model cannot be loaded", 500),
    "request": ("The request cannot be done", 422),
    "engine": ("The picture could not be developed", 500),
    "storage": ("The picture could not be stored", 507),
    "source": ("The source picture is gone", 410),
}


class Dispatcher:
    """Runs queued jobs on one engine until it is stopped.

    Args:
        leases: this worker's side of the queue.
        files: where images are stored.
        engine: used only from the thread that calls `run`.
        bell: rings when the queue has changed.
        ring_web: wakes the web process to read new events.
        settings: intervals and timeouts.
        device: a description of what the engine runs on.
        max_in_flight: the most jobs in the engine at a time.
        pulse: called in every turn of the loop, also while idle, for the watchdog.
        meters: metrics of this worker.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        leases: Leases,
        files: Files,
        engine: Engine,
        bell: Doorbell,
        ring_web: Callable[[], None],
        settings: QueueSettings,
        device: str,
        max_in_flight: int,
        pulse: Callable[[], None] = lambda: None,
        meters: Meters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._files = files
        self._engine = engine
        self._bell = bell
        self._ring_web = ring_web
        self._settings = settings
        self._device = device
        self._max_in_flight = max_in_flight
        self._pulse = pulse
        self._meters = meters or Meters()
        self._clock = clock
        self._stopping = threading.Event()
        self._stop_by = float("inf")
        self._ready = threading.Event()
        self._running: dict[str, Running] = {}
        self._progress = ProgressWriter(leases, ring_web, pulse, self._stopping)
        self._flushed_at = float("-inf")
        self._polled_at = float("-inf")
        self._poll_now = True  # the queue may have changed without a ring

    def stop(self) -> None:
        """Stop when the jobs in flight are done, or after a timeout. From any thread.

        Jobs that are not done by then go back to the queue.
        """
        if not self._stopping.is_set():
            self._stop_by = self._clock() + self._settings.shutdown_timeout_s
        self._stopping.set()

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded."""
        return self._ready.is_set()

    def run(self) -> None:
        """Run jobs until `stop`.

        Raises:
            OSError: the default model cannot be loaded.
            DatabaseUnavailableError: a result could not be written before the worker had to stop.
        """
        interrupted = self._leases.recover_own()
        if interrupted:
            log.warning("interrupted jobs were queued again", jobs=interrupted)
            self._ring_web()
        heartbeats = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
        heartbeats.start()
        try:
            self._engine.warm_up()
            self._ready.set()
            self._heartbeat()
            self._ring_web()
            log.info("ready", worker=self._leases.worker, device=self._device)
            while not self._done():
                self._turn()
            self._flush()
            # Not after an error: the jobs then count as interrupted, so that a job that crashes
            # the worker each time fails in the end.
            self._give_back()
        finally:
            self._stopping.set()
            heartbeats.join()
            self._ring_web()

    def _give_back(self) -> None:
        try:
            returned = self._leases.give_back()
        except DatabaseUnavailableError as error:
            log.warning("jobs not put back; they count as interrupted", reason=str(error))
        else:
            if returned:
                log.info("jobs put back", jobs=returned)

    def _done(self) -> bool:
        if not self._stopping.is_set():
            return False
        return not self._running or self._clock() > self._stop_by

    def _send_heartbeats(self) -> None:
        """Extend the leases from a separate thread, because ticks and model loads can be long."""
        while True:
            try:
                self._heartbeat()
            except Exception:
                log.exception("heartbeat failed")
            if self._stopping.wait(min(self._leases.lease_s / 4, METRICS_EVERY_S)):
                return

    def _heartbeat(self) -> None:
        self._leases.heartbeat(
            ready=self.ready,
            device=self._device,
            max_in_flight=self._max_in_flight,
            metrics=self._meters.text(),
        )

    def _turn(self) -> None:
        """Poll the queue if it may have changed, run one tick, handle its events."""
        self._pulse()
        rung = self._bell.wait(0 if self._running or self._poll_now else self._settings.poll_s)
        if rung or self._poll_now or self._clock() - self._polled_at >= self._settings.poll_s:
            self._poll()
        if not self._running:
            self._meters.idle()
            return
        began = self._clock()
        events = self._engine.tick()
        seconds = self._clock() - began
        self._meters.ticked(seconds, len(self._running))
        share_out(seconds, events, self._running)
        for event in events:
            self._handle(event)
        if self._clock() - self._flushed_at >= self._settings.flush_s:
            self._flush()

    def _poll(self) -> None:
        """Read cancel requests, and fetch jobs."""
        self._polled_at = self._clock()
        self._poll_now = False
        try:
            for job_id in self._leases.cancel_requests():
                self._cancel(job_id)
            if not self._stopping.is_set():
                self._claim()
        except DatabaseUnavailableError as error:
            log.warning("the queue cannot be read", reason=str(error))  # polled again

    def _claim(self) -> None:
        """Fetch jobs until the engine is full. An isolated job stays alone in it."""
        self._leases.recover_lapsed()
        while len(self._running) < self._max_in_flight:
            if any(running.claim.isolated for running in self._running.values()):
                return
            claim = self._leases.claim(busy=bool(self._running))
            if claim is None:
                return
            running = Running(claim)
            self._running[claim.job_id] = running
            try:
                job = running.load(self._files)
            except (OSError, ValueError) as error:
                self._fail(claim.job_id, "source", f"a source picture cannot be read: {error}")
            else:
                log.info("job claimed", attempt=claim.attempt, **_names(running))
                self._engine.submit(job)

    def _handle(self, event: EngineEvent) -> None:
        running = self._running.get(event.job_id)
        if running is None:
            return  # dropped by an earlier event
        try:
            self._pass_on(event, running)
        except LeaseLostError:
            self._lost(running)
            self._drop(event.job_id)
        except OSError as error:
            log.exception("picture not stored", **_names(running))
            self._fail(
                event.job_id, "storage", f"the picture could not be stored: {error.strerror}"
            )
        except (ValueError, TypeError, LookupError) as error:
            # A bug in the handling of this job must not end the other jobs.
            log.exception("job failed", **_names(running))
            self._fail(event.job_id, "engine", f"{type(error).__name__}: {error}")

    def _pass_on(self, event: EngineEvent, running: Running) -> None:
        job_id = event.job_id
        match event:
            case Started(steps=steps):
                running.steps = steps
                running.started_at = self._clock()
                self._progress.append(job_id, EventType.STARTED, {"attempt": running.claim.attempt})
                self._progress.steps[job_id] = (0, steps)
                self._flush()
            case Stepped(step=step, steps=steps):
                running.step, running.steps = step, steps
                eta = running.eta_seconds(self._clock())
                data: dict[str, object] = {"step": step, "steps": steps, "eta_seconds": eta}
                self._progress.append(job_id, EventType.PROGRESS, data)
                self._progress.steps[job_id] = (step, steps)
            case Previewed(webp=webp):
                self._progress.append(job_id, EventType.PREVIEW, preview_data(webp))
            case JobWarning(note=note):
                self._flush()
                self._progress.persist(lambda: self._leases.add_note(job_id, note))
                self._ring_web()
            case ImageReady():
                self._flush()
                self._store(event, running)
                self._ring_web()
            case Finished():
                self._flush()
                self._progress.persist(lambda: self._leases.finish(job_id, JobStatus.SUCCEEDED))
                self._learn(running)
                log.info("job succeeded", images=running.claim.workload.images, **_names(running))
                self._drop(job_id)
            case Failed(kind=kind, detail=detail):
                self._fail(job_id, kind, detail)

    def _learn(self, running: Running) -> None:
        measured = running.measured()
        if measured is not None:
            with contextlib.suppress(DatabaseUnavailableError):  # later jobs are measured too
                self._leases.learn_speed(*measured)

    def _store(self, event: ImageReady, running: Running) -> None:
        """Store an image: first the file, then the record, so that every record has its file."""
        request = running.claim.request
        began = self._clock()
        data = codec.encode(event.picture, request.output_format, running.text_chunks(event.index))
        image_id = f"{event.job_id}-{event.index}"
        self._files.write(image_id, data)
        digest = sha256(data).hexdigest()
        self._progress.persist(
            lambda: self._leases.add_image(
                ImageRow(
                    id=image_id,
                    job_id=event.job_id,
                    index=event.index,
                    seed=event.seed,
                    width=event.picture.width,
                    height=event.picture.height,
                    content_type=OutputFormat(request.output_format).content_type,
                    bytes=len(data),
                    sha256=digest,
                ),
            )
        )
        running.other_seconds += self._clock() - began

    def _flush(self) -> None:
        self._flushed_at = self._clock()
        self._progress.flush()

    def _cancel(self, job_id: str) -> None:
        running = self._running.get(job_id)
        if running is not None:
            self._flush()
            try:
                self._progress.persist(lambda: self._leases.finish(job_id, JobStatus.CANCELLED))
                log.info("job cancelled", **_names(running))
            except LeaseLostError:
                self._lost(running)
            self._drop(job_id)

    def _fail(self, job_id: str, kind: str, detail: str) -> None:
        title, status = PROBLEMS[kind]
        problem = Problem(
            type=f"urn:darkroom:problem:{kind}", title=title, status=status, detail=detail
        )
        self._flush()
        running = self._running[job_id]
        try:
            self._progress.persist(lambda: self._leases.finish(job_id, JobStatus.FAILED, problem))
            log.warning("job failed", kind=kind, **_names(running))
        except LeaseLostError:
            self._lost(running)
        self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        """Remove a job from this worker."""
        self._engine.cancel(job_id)
        self._running.pop(job_id, None)
        self._poll_now = True  # there is room for another job
        self._ring_web()

    def _lost(self, running: Running) -> None:
        log.warning("lease lost", **_names(running))
        self._meters.lease_lost()


def _names(running: Running) -> dict[str, str | None]:
    """The ids of a job and of its HTTP request, for the log."""
    return {"job_id": running.claim.job_id, "request_id": running.claim.request_id}
