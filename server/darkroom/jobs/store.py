"""The queue in SQL: every change of a job's state is one transaction here."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import Session

from darkroom.jobs import database
from darkroom.jobs.eta import Estimator, Speed, expected_steps
from darkroom.jobs.records import (
    Claim,
    NewEvent,
    NewJob,
    StoredPicture,
    event_of,
    image_of,
    job_of,
    request_of,
)
from darkroom.jobs.tables import EventRow, ImageRow, JobRow, SpeedRow, UploadRow, WorkerRow
from darkroom.schemas import Event, EventType, Image, Job, JobStatus, Problem

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)
WORKER_FRESH_S = 20.0  # a worker not seen for longer is not there


class IdempotencyConflictError(Exception):
    """The key was used before, for something else."""


class LeaseLostError(Exception):
    """Someone else has the job by now; what this worker made of it does not count."""


class Store:
    """Jobs, pictures' records and events. Any thread, any process.

    Args:
        path: of the database, already migrated.
        clock: seconds since the epoch.
        new_id: makes unguessable ids.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        self._durable = database.connect(path, "FULL")
        self._relaxed = database.connect(path, "NORMAL")
        self._reading = self._relaxed.execution_options(read_only=True)
        self._clock = clock
        self.new_id = new_id

    def close(self) -> None:
        self._durable.dispose()
        self._relaxed.dispose()

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self._reading) as session:
            yield session

    @contextmanager
    def _write(self, *, durable: bool = True) -> Iterator[Session]:
        with Session(self._durable if durable else self._relaxed) as session, session.begin():
            yield session

    # --- accepting -------------------------------------------------------------------------

    def accept(self, new: NewJob) -> tuple[str, bool]:
        """Put a job in the queue. It is on disk when this returns.

        Returns:
            The job's id, and whether it is new rather than an earlier one with the same key.

        Raises:
            IdempotencyConflictError: the key belongs to a different request.
        """
        with self._write() as session:
            if new.idempotency_key is not None:
                earlier = session.scalar(
                    select(JobRow).where(
                        JobRow.client == new.client,
                        JobRow.idempotency_key == new.idempotency_key,
                    )
                )
                if earlier is not None:
                    if earlier.fingerprint != new.fingerprint:
                        raise IdempotencyConflictError(new.idempotency_key)
                    return earlier.id, False
            now = self._clock()
            for upload in new.uploads:
                session.add(UploadRow(client=new.client, created_at=now, **vars(upload)))
            row = JobRow(
                id=self.new_id(),
                client=new.client,
                task=new.request.task,
                status=JobStatus.QUEUED,
                request=new.request.model_dump_json(),
                steps=expected_steps(new.request),
                fingerprint=new.fingerprint,
                idempotency_key=new.idempotency_key,
                created_at=now,
            )
            session.add(row)
            session.flush()
            self._log_queued(session, row)
            return row.id, True

    def _log_queued(self, session: Session, row: JobRow) -> None:
        job = self._job(session, row)
        self._log(
            session,
            NewEvent(
                row.id,
                EventType.QUEUED,
                {"position": job.position, "eta_seconds": job.eta_seconds},
            ),
        )

    def _log(self, session: Session, *events: NewEvent) -> None:
        now = self._clock()
        session.add_all(
            EventRow(job_id=e.job_id, type=e.type, data=json.dumps(e.data), created_at=now)
            for e in events
        )

    # --- reading ---------------------------------------------------------------------------

    def job(self, job_id: str, client: str) -> Job | None:
        with self._read() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.client == client))
            return None if row is None else self._job(session, row)

    def jobs(
        self, client: str, *, before: int | None, limit: int, status: JobStatus | None
    ) -> tuple[list[Job], int | None]:
        """A page of a client's jobs, newest first.

        Args:
            client: whose.
            before: the cursor of the page before this one, or None for the first.
            limit: of jobs on the page.
            status: only these.

        Returns:
            The page, and the cursor of the next one if there is one.
        """
        query = select(JobRow).where(JobRow.client == client).order_by(JobRow.sequence.desc())
        if before is not None:
            query = query.where(JobRow.sequence < before)
        if status is not None:
            query = query.where(JobRow.status == status)
        with self._read() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            jobs = [self._job(session, row) for row in rows[:limit]]
            return jobs, rows[limit - 1].sequence if len(rows) > limit else None

    def _job(self, session: Session, row: JobRow) -> Job:
        images = session.scalars(select(ImageRow).where(ImageRow.job_id == row.id)).all()
        ahead: Sequence[JobRow] = ()
        if row.status == JobStatus.QUEUED:
            ahead = session.scalars(
                select(JobRow)
                .where(JobRow.status.in_(UNFINISHED), JobRow.sequence < row.sequence)
                .order_by(JobRow.sequence)
            ).all()
        return job_of(row, images, ahead, self._estimator(session))

    def _estimator(self, session: Session) -> Estimator:
        return Estimator(
            {
                (row.model, row.pixels): Speed(row.step_seconds, row.other_seconds)
                for row in session.scalars(select(SpeedRow))
            }
        )

    def images(self, job_id: str) -> list[Image]:
        with self._read() as session:
            rows = session.scalars(select(ImageRow).where(ImageRow.job_id == job_id))
            return [image_of(row) for row in rows]

    def picture(self, picture_id: str, client: str) -> StoredPicture | None:
        """An output or an upload of this client's."""
        with self._read() as session:
            image = session.scalar(
                select(ImageRow)
                .join(JobRow, JobRow.id == ImageRow.job_id)
                .where(ImageRow.id == picture_id, JobRow.client == client)
            )
            if image is not None:
                return StoredPicture(
                    image.id, image.content_type, image.sha256, image.width, image.height
                )
            upload = session.scalar(
                select(UploadRow).where(UploadRow.id == picture_id, UploadRow.client == client)
            )
            if upload is not None:
                return StoredPicture(
                    upload.id, "image/png", upload.sha256, upload.width, upload.height
                )
            return None

    def delete_picture(self, picture_id: str, client: str) -> bool:
        """Forget a picture; its bytes are the caller's to delete. Returns whether it was there.

        An upload that an unfinished job still needs stays until then.
        """
        with self._write() as session:
            image = session.scalar(
                select(ImageRow)
                .join(JobRow, JobRow.id == ImageRow.job_id)
                .where(ImageRow.id == picture_id, JobRow.client == client)
            )
            upload = session.scalar(
                select(UploadRow).where(UploadRow.id == picture_id, UploadRow.client == client)
            )
            found = image or upload
            if found is None:
                return False
            session.delete(found)
            return True

    def picture_in_use(self, picture_id: str) -> bool:
        """Whether an unfinished job has this picture for its source or mask."""
        with self._read() as session:
            rows = session.scalars(select(JobRow).where(JobRow.status.in_(UNFINISHED)))
            reference = f"image:{picture_id}"
            return any(
                reference in (request.image, request.mask_image)
                for request in map(request_of, rows)
            )

    def events_after(
        self, event_id: int, job_id: str | None = None, limit: int = 500
    ) -> list[Event]:
        """Events with greater ids, oldest first."""
        query = select(EventRow).where(EventRow.id > event_id).order_by(EventRow.id).limit(limit)
        if job_id is not None:
            query = query.where(EventRow.job_id == job_id)
        with self._read() as session:
            return [event_of(row) for row in session.scalars(query)]

    def last_event_id(self) -> int:
        with self._read() as session:
            return session.scalar(select(func.max(EventRow.id))) or 0

    def owners(self, job_ids: set[str]) -> dict[str, str]:
        """The client of each job."""
        with self._read() as session:
            rows = session.execute(select(JobRow.id, JobRow.client).where(JobRow.id.in_(job_ids)))
            return dict(rows.tuples().all())

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        with self._read() as session:
            rows = session.execute(select(JobRow.status, func.count()).group_by(JobRow.status))
            return dict(rows.tuples().all())

    # --- cancelling ------------------------------------------------------------------------

    def cancel(self, job_id: str, client: str) -> Job | None:
        """Cancel a queued job now, a running one at its next step; a finished one stays as it is.

        Returns:
            The job as it is now, or None if this client has none of that id.
        """
        with self._write() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.client == client))
            if row is None:
                return None
            if row.status == JobStatus.QUEUED:
                self._end(session, row, JobStatus.CANCELLED, None)
            elif row.status == JobStatus.RUNNING:
                row.cancel_requested = True
            session.flush()
            return self._job(session, row)

    def cancel_requests(self, worker: str) -> list[str]:
        """Running jobs of this worker that somebody wants stopped."""
        with self._read() as session:
            return list(
                session.scalars(
                    select(JobRow.id).where(JobRow.worker == worker, JobRow.cancel_requested)
                )
            )

    # --- working ---------------------------------------------------------------------------

    def claim(self, worker: str, lease_s: float, *, busy: bool) -> Claim | None:
        """Take the oldest queued job.

        A job that was interrupted before is given to an idle worker only, so that a job that
        kills workers does not take its neighbours with it again.

        Args:
            worker: who takes it.
            lease_s: how long the claim holds without a heartbeat.
            busy: whether the worker has other jobs in flight.
        """
        query = (
            select(JobRow)
            .where(JobRow.status == JobStatus.QUEUED)
            .order_by(JobRow.sequence)
            .limit(1)
        )
        with self._read() as session:  # an idle worker must not take the write lock to look
            row = session.scalar(query)
            if row is None or (row.attempts > 0 and busy):
                return None
        with self._write() as session:
            row = session.scalar(query)
            if row is None or (row.attempts > 0 and busy):
                return None
            now = self._clock()
            row.status = JobStatus.RUNNING
            row.worker = worker
            row.lease_until = now + lease_s
            row.attempts += 1
            row.step = 0
            row.started_at = row.started_at or now
            return Claim(row.id, request_of(row), row.attempts)

    def heartbeat(self, worker: str, lease_s: float, *, ready: bool, device: str) -> None:
        """Say that a worker is alive, and extend its leases."""
        now = self._clock()
        values = {"ready": ready, "device": device, "seen_at": now}
        with self._write(durable=False) as session:
            session.execute(
                upsert(WorkerRow)
                .values(id=worker, **values)
                .on_conflict_do_update(index_elements=["id"], set_=values)
            )
            session.execute(
                update(JobRow)
                .where(JobRow.worker == worker, JobRow.status == JobStatus.RUNNING)
                .values(lease_until=now + lease_s)
            )

    def workers(self) -> list[tuple[str, bool, str]]:
        """Id, readiness and device of the workers seen lately."""
        fresh = WorkerRow.seen_at > self._clock() - WORKER_FRESH_S
        with self._read() as session:
            rows = session.scalars(select(WorkerRow).where(fresh).order_by(WorkerRow.id))
            return [(row.id, row.ready, row.device) for row in rows]

    def forget_worker(self, worker: str) -> None:
        """A worker is going away."""
        with self._write(durable=False) as session:
            row = session.get(WorkerRow, worker)
            if row is not None:
                session.delete(row)

    def record(
        self, worker: str, events: Sequence[NewEvent], steps: dict[str, tuple[int, int]]
    ) -> None:
        """Append progress of running jobs. Not worth a sync: it can be lost, not corrupted.

        Args:
            worker: who says so; jobs it has no lease on any more are passed over.
            events: in order.
            steps: by job, steps done and steps in all.
        """
        jobs = {event.job_id for event in events} | steps.keys()
        with self._write(durable=False) as session:
            held = set(session.scalars(self._held(worker).where(JobRow.id.in_(jobs))))
            self._log(session, *(event for event in events if event.job_id in held))
            for job_id in steps.keys() & held:
                done, total = steps[job_id]
                session.execute(
                    update(JobRow).where(JobRow.id == job_id).values(step=done, steps=total)
                )

    @staticmethod
    def _held(worker: str) -> Select[str]:
        return select(JobRow.id).where(JobRow.worker == worker, JobRow.status == JobStatus.RUNNING)

    def add_image(self, worker: str, image: ImageRow) -> None:
        """Record a picture whose bytes are on disk. A second run of a job adds none.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        with self._write() as session:
            if session.scalar(self._held(worker).where(JobRow.id == image.job_id)) is None:
                raise LeaseLostError(image.job_id)
            if session.get(ImageRow, image.id) is None:
                image.created_at = self._clock()
                session.add(image)
                session.flush()
                data = image_of(image).model_dump(mode="json")
                self._log(session, NewEvent(image.job_id, EventType.IMAGE, {"image": data}))

    def finish(
        self, worker: str, job_id: str, status: JobStatus, problem: Problem | None = None
    ) -> None:
        """Bring a running job to its end. On disk when this returns.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        with self._write() as session:
            if session.scalar(self._held(worker).where(JobRow.id == job_id)) is None:
                raise LeaseLostError(job_id)
            row = session.scalars(select(JobRow).where(JobRow.id == job_id)).one()
            if status is JobStatus.SUCCEEDED:
                row.step = row.steps
            self._end(session, row, status, problem)

    def _end(
        self, session: Session, row: JobRow, status: JobStatus, problem: Problem | None
    ) -> None:
        row.status = status
        row.worker = row.lease_until = None
        row.cancel_requested = False
        row.finished_at = self._clock()
        row.error = None if problem is None else problem.model_dump_json()
        data: dict[str, object] = {}
        if problem is not None:
            data["problem"] = problem.model_dump(mode="json")
        self._log(session, NewEvent(row.id, EventType(status.value), data))

    def give_back(self, worker: str) -> int:
        """Return a stopping worker's jobs to the queue; the attempt does not count."""
        with self._write() as session:
            rows = session.scalars(select(JobRow).where(JobRow.worker == worker)).all()
            for row in rows:
                row.attempts -= 1
                self._requeue(session, row)
            return len(rows)

    def recover(self, max_attempts: int, worker: str | None = None) -> int:
        """Put interrupted jobs back in the queue.

        Args:
            max_attempts: a job interrupted that often fails instead.
            worker: recover the jobs of this worker, known to be dead; None recovers the jobs
                whose lease has lapsed.

        Returns:
            How many jobs were interrupted.
        """
        lapsed = JobRow.lease_until < self._clock() if worker is None else JobRow.worker == worker
        query = select(JobRow).where(JobRow.status == JobStatus.RUNNING, lapsed)
        with self._read() as session:
            if session.scalar(query.limit(1)) is None:
                return 0
        with self._write() as session:
            rows = session.scalars(query).all()
            for row in rows:
                if row.cancel_requested:
                    self._end(session, row, JobStatus.CANCELLED, None)
                elif row.attempts >= max_attempts:
                    self._end(session, row, JobStatus.FAILED, _interrupted(row.attempts))
                else:
                    self._requeue(session, row)
            return len(rows)

    def _requeue(self, session: Session, row: JobRow) -> None:
        row.status = JobStatus.QUEUED
        row.worker = row.lease_until = None
        row.step = 0
        session.flush()
        self._log_queued(session, row)

    def learn_speed(self, model: str, pixels: int, speed: Speed) -> None:
        """Take a measurement into the estimates."""
        with self._write(durable=False) as session:
            row = session.get(SpeedRow, (model, pixels))
            if row is None:
                session.add(SpeedRow(model=model, pixels=pixels, **vars(speed)))
            else:
                blended = Speed(row.step_seconds, row.other_seconds).blended(speed)
                row.step_seconds, row.other_seconds = blended.step_seconds, blended.other_seconds


def _interrupted(attempts: int) -> Problem:
    return Problem(
        type="urn:darkroom:problem:interrupted",
        title="The job was interrupted too often",
        status=500,
        detail=f"The worker stopped {attempts} times while it worked on this job.",
    )
