"""A job on the server."""

from collections.abc import Generator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, Self

from darkroom_client.blocking.display import DisplayedJob
from darkroom_client.blocking.explanation import Explanation
from darkroom_client.blocking.picture import Image
from darkroom_client.blocking.transport import Transport
from darkroom_client.blocking.watch import Event, Watch
from darkroom_client.core import call
from darkroom_client.core.errors import JobCancelledError, JobFailedError
from darkroom_client.core.explanation import images_of
from darkroom_client.core.problem import Problem
from darkroom_client.core.records import JobRecord, JobStatus, Progress, Task
from darkroom_client.notebook.bar import shown


class Job(DisplayedJob):
    """A job as it was when the server was last asked.

    The properties cost nothing and never ask; `refresh`, `wait`, `cancel` and the end of `events`
    renew them. Those raise ConnectionFailedError and APIError besides what they name.

    Args:
        transport: to the server that has the job.
        record: what it said of it.
        reattach_for_s: how long to look for a server that went away.
        progress: whether a notebook shows a bar while the job is followed.
    """

    def __init__(
        self,
        transport: Transport,
        record: JobRecord,
        reattach_for_s: float,
        progress: bool = False,
    ) -> None:
        self._transport = transport
        self._reattach_for_s = reattach_for_s
        self._progress = progress
        self.record = record

    def refresh(self) -> Self:
        """Ask how the job stands."""
        answer = self._transport.send(call.show_job(self.id))
        self.record = answer.read(JobRecord.from_wire)
        return self

    def wait(self, timeout_s: float | None = None, *, progress: bool | None = None) -> Self:
        """Wait until the job has its pictures.

        Args:
            timeout_s: how long to wait; None is as long as it takes.
            progress: whether a notebook shows a bar; None is the client's setting.

        Raises:
            JobFailedError: it ended without pictures.
            JobCancelledError: somebody cancelled it.
            WaitTimeoutError: it goes on, and may be waited for again.
        """
        if not self.status.terminal:
            for _ in self.events(timeout_s, progress=progress):
                pass
        if self.status is JobStatus.FAILED:
            raise JobFailedError(self.record)
        if self.status is JobStatus.CANCELLED:
            raise JobCancelledError(self.record)
        return self

    def events(
        self, timeout_s: float | None = None, *, progress: bool | None = None
    ) -> Generator[Event]:
        """What happens to the job, from its beginning to its end, each event once.

        A connection that breaks is replaced by another. When the last event comes out, the job
        has been refreshed.

        Args:
            timeout_s: how long to listen; None is as long as it takes.
            progress: whether a notebook shows a bar; None is the client's setting.

        Raises:
            WaitTimeoutError: it goes on, and may be listened to again.
        """
        watch = Watch(self._transport, self.id, self._reattach_for_s, timeout_s)
        wanted = self._progress if progress is None else progress
        with shown(self, wanted, self._transport.effects.clock) as show:
            with closing(watch.events()) as events:
                for event in events:
                    if event.terminal:
                        self.refresh()
                    show(event)
                    yield event
            if not self.status.terminal:
                self.refresh()

    def __iter__(self) -> Generator[Event]:
        return self.events()

    def timeline(self, index: int = 0) -> bytes:
        """How picture `index` developed: a small animated WebP file, the picture last.

        Of a job that still runs it shows what there is so far.

        Raises:
            NotFoundError: there are no previews, or none yet; its detail says which.
        """
        return (self._transport.send(call.show_timeline(self.id, index))).body

    def explain(self) -> Explanation:
        """How its pictures were made, of a job that was asked for with `explain=True`.

        Of a job that still runs, those pictures that are ready.

        Raises:
            NotFoundError: it was not asked to, or no picture is ready yet; its detail says which.
        """
        answer = self._transport.send(call.explain_job(self.id))
        images = answer.read(images_of)
        if not {image.index for image in images} <= {image.index for image in self.record.images}:
            self.refresh()
        return Explanation(self.id, images, self.images)

    def cancel(self) -> Self:
        """Cancel the job: at once while it is queued, within a step when it runs.

        A job that has ended stays as it is.
        """
        self.record = (self._transport.send(call.cancel_job(self.id))).read(JobRecord.from_wire)
        return self

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def task(self) -> Task:
        return self.record.task

    @property
    def status(self) -> JobStatus:
        return self.record.status

    @property
    def position(self) -> int | None:
        """Jobs ahead of it while it is queued, else None."""
        return self.record.position

    @property
    def eta_seconds(self) -> float | None:
        """Measured estimate of the time to its end, or None."""
        return self.record.eta_seconds

    @property
    def progress(self) -> Progress:
        """Steps done and steps in all, over all its images."""
        return self.record.progress

    @property
    def attempts(self) -> int:
        """How often a worker began it."""
        return self.record.attempts

    @property
    def worker(self) -> str | None:
        """Name of the worker where it runs or ran last."""
        return self.record.worker

    @property
    def device(self) -> str | None:
        """What that worker runs on, such as `cuda`."""
        return self.record.device

    @property
    def request(self) -> Mapping[str, Any]:
        """Its fields with nothing left open.

        As arguments of the same task they make the same pictures again:
        `client.txt2img(**job.request)`.
        """
        return self.record.request

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures that are finished."""
        return tuple(Image.of(image, self._transport) for image in self.record.images)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done differently from what was asked, and what else to know; often nothing."""
        return self.record.notes

    @property
    def error(self) -> Problem | None:
        """Why it failed, if it did."""
        return self.record.error

    @property
    def created_at(self) -> datetime:
        return self.record.created_at

    @property
    def started_at(self) -> datetime | None:
        return self.record.started_at

    @property
    def finished_at(self) -> datetime | None:
        return self.record.finished_at

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.task} {self.status}>"
