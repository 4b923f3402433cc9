"""The worker's loop: fetch jobs, run the engine, have its events recorded."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from darkroom.catalog import published
from darkroom.config import QueueSettings
from darkroom.engine.base import Engine
from darkroom.errors import Message, message, text_of
from darkroom.images.codec import PNG_LEVEL
from darkroom.queue.affinity import Affinity
from darkroom.queue.doorbell import Doorbell
from darkroom.queue.job_recorder import JobRecorder, Progress
from darkroom.queue.leases import Leases
from darkroom.queue.picture_writer import PictureWriter
from darkroom.queue.running_job import Running, share_out
from darkroom.queue.unloads import Unloads
from darkroom.queue.worker_metrics import Meters
from darkroom.queue.worker_models import WorkerModels
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.files import Files, FilesUnavailableError

log = structlog.get_logger()

METRICS_EVERY_S = 5.0  # longest time between two records of the worker's metrics


@dataclass(eq=False, kw_only=True)
class Dispatcher:
    """Runs queued jobs on one engine until it is stopped.

    Attributes:
        engine: used only from the thread that calls `run`.
        bell: rings when the queue has changed.
        ring_web: wakes the web process to read new events.
        device: a description of what the engine runs on.
        about: returns more that is told of it, see `WorkerRow`.
        catalog: returns what the worker has, see `catalog.published`. Both are called in a thread
            of their own.
        max_in_flight: the most jobs in the engine at a time.
        keep_alive_s: see `WorkerModels`.
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
    about: Callable[[], Mapping[str, object]] = dict
    catalog: Callable[[], str] = lambda: published.UNKNOWN
    png_level: int = PNG_LEVEL
    keep_alive_s: float = 0.0
    pulse: Callable[[], None] = lambda: None
    meters: Meters = field(default_factory=Meters)
    clock: Callable[[], float] = time.monotonic
    ready: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._stop_by = float("inf")
        self._models = WorkerModels(
            self.engine,
            Unloads(self.leases.database),
            Affinity(self.settings.affinity_s, self.clock),
            keep_alive_s=self.keep_alive_s,
        )
        self._pictures = PictureWriter(
            self.files, self.png_level, self.bell.ring, self.leases.check
        )
        self._unread: Running | None = None  # claimed, while its sources cannot be read
        self._progress = Progress(
            self.leases, ring_web=self.ring_web, every_s=self.settings.flush_s, clock=self.clock
        )
        self._jobs = JobRecorder(
            leases=self.leases,
            engine=self.engine,
            models=self._models,
            pictures=self._pictures,
            progress=self._progress,
            meters=self.meters,
            ring_web=self.ring_web,
            pulse=self.pulse,
            clock=self.clock,
            stopping=self._stopping,
        )
        self._polled_at = float("-inf")

    def stop(self) -> None:
        """Stop when the jobs in flight are done, or after a timeout. From any thread.

        Jobs that are not done by then go back to the queue.
        """
        if not self._stopping.is_set():
            self._stop_by = self.clock() + self.settings.shutdown_timeout_s
        self._stopping.set()
        self.bell.ring()

    def hurry(self) -> None:
        """Put jobs that are not done back in the queue now. After `stop`, from any thread."""
        self._stop_by = self.clock()

    def run(self) -> None:
        """Run jobs until `stop`.

        Raises:
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
            while not self._stopping.is_set():
                self._turn()
            if self._jobs.running:
                wait_s = self.settings.shutdown_timeout_s
                log.info("stopping", jobs=len(self._jobs.running), wait_s=wait_s)
            while self._jobs.running and self.clock() <= self._stop_by:
                self._turn()
            self._progress.flush()
            self._pictures.close(finish=False)
            self._jobs.record_pictures()
            self._stopped.set()
            heartbeats.join()  # one more would bring the name back
            # Not after an error: the jobs then count as interrupted, so that a job that crashes
            # the worker each time fails in the end.
            self._give_back()
        except Exception:
            self._pictures.close(finish=True)  # what the engine had made is not lost with it
            self._jobs.record_pictures()
            raise
        finally:
            self._stopping.set()
            self._stopped.set()
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
        """Extend the leases from a separate thread, because ticks and model loads can be long.

        Also while the worker stops: its jobs have time to end, which may be longer than a lease.
        """
        while True:
            try:
                self._heartbeat()
            except Exception:
                log.exception("heartbeat failed")
            if self._stopped.wait(min(self.leases.lease_s / 4, METRICS_EVERY_S)):
                return

    def _heartbeat(self) -> None:
        has_name = self.leases.heartbeat(
            ready=self.ready and not self._stopping.is_set(),
            device=self.device,
            max_in_flight=self.max_in_flight,
            metrics=self.meters.text(),
            broken=self.engine.broken(),
            memory=self.engine.memory(),
            about=self.about(),
            catalog=self.catalog(),
        )
        if not has_name:
            log.error("another process works under this name now", worker=self.leases.worker)
            self.stop()
            self.hurry()

    def _turn(self) -> None:
        """Poll the queue if it may have changed, run one tick, handle its events."""
        self.pulse()
        self._jobs.record_pictures()
        rung = self._wait()
        if rung or self._jobs.has_room or self.clock() - self._polled_at >= self.settings.poll_s:
            self._poll()
        self._tick()
        self._progress.flush_if_due()

    def _wait(self) -> bool:
        """Wait for a ring while there is nothing to do. Returns whether there was one.

        A picture that is stored rings too. While the loop waits for one, the time is charged to
        the picture's job; while the engine goes on meanwhile, it costs nobody anything.
        """
        if self._jobs.has_room or (self._jobs.in_engine() and not self._pictures.is_behind):
            return self.bell.wait(0)
        began = self.clock()
        rung = self.bell.wait(self.settings.poll_s)
        slow = self._pictures.oldest
        if slow is not None:
            slow.other_seconds += self.clock() - began
        return rung

    def _tick(self) -> None:
        """Have the engine do one call, and handle its events."""
        working = self._jobs.in_engine()
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
            self._jobs.handle(event)

    def _poll(self) -> None:
        """Read requests to cancel and to unload, and fetch jobs."""
        self._polled_at = self.clock()
        self._jobs.has_room = False
        try:
            for job_id in self.leases.cancel_requests():
                self._jobs.cancel(job_id)
            self._models.unload(self._jobs.models_in_use())
            if not self._stopping.is_set():
                self._claim()
        except DatabaseUnavailableError as error:
            log.warning("the queue cannot be read", reason=str(error))  # polled again

    def _claim(self) -> None:
        """Fetch jobs until the engine is full. An isolated job stays alone in it.

        None is fetched while the sources of the last one cannot be read.
        """
        self.leases.recover_lapsed()
        if self._unread is not None and not self._begin(self._unread):
            return
        self._unread = None
        while len(self._jobs.in_engine()) < self.max_in_flight:
            if any(running.claim.isolated for running in self._jobs.running.values()):
                return
            in_use = self._jobs.models_in_use()
            claim = self.leases.claim(
                busy=bool(self._jobs.running),
                pick=self._models.pick(in_use),
                here=in_use.union(self.engine.resident()),
            )
            if claim is None:
                return
            running = self._jobs.begin(claim)
            if not self._begin(running):
                self._unread = running
                return

    def _begin(self, running: Running) -> bool:
        """Have the engine begin a claimed job, or fail it if its sources cannot be used.

        Returns False if they cannot be read now.
        """
        if running.claim.job_id not in self._jobs.running:
            return True  # it was cancelled meanwhile, or its lease was lost
        try:
            job = running.load(self.files)
        except FilesUnavailableError as error:
            log.warning("a source cannot be read yet", reason=str(error), **running.ids)
            return False
        except FileNotFoundError:
            detail = message("source_gone", "the file of a source picture is gone")
            self._jobs.fail(running, "source", detail)
        except OSError as error:
            detail = _unreadable(error.strerror or "it is not a picture")
            self._jobs.fail(running, "source", detail)
        except ValueError as error:
            self._jobs.fail(running, "source", _unreadable(text_of(error)))
        else:
            log.info("job claimed", attempt=running.claim.attempt, **running.ids)
            running.loaded = True
            self.engine.submit(job)
        return True


def _unreadable(reason: str) -> Message:
    said = message("source_unreadable", "a source picture cannot be read: {reason}", reason=reason)
    return said.told_by(reason)
