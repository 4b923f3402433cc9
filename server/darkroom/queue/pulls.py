"""Downloads that were asked for, and how each stands. One process works on them, see `ops.puller`.

Rows outlive processes: a download that was running when its process or web died is queued again.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from darkroom.catalog.downloads import Plan, Wanted, discard, size_of
from darkroom.errors import DarkroomError
from darkroom.responses import JobStatus, Problem, Pull
from darkroom.storage.database import Database
from darkroom.storage.records import timestamp
from darkroom.storage.tables import PullRow

KEPT = 50  # of those that have ended
ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


class UnknownPullError(DarkroomError):
    """There is no download of that id."""


@dataclass(frozen=True)
class PullJob:
    """A download to work on.

    Attributes:
        restarts: how often its process died without bringing anything.
        done_bytes: that were here when it was last heard of.
    """

    id: str
    wanted: Wanted
    target: Path
    unfinished: Path
    restarts: int
    done_bytes: int


@dataclass(frozen=True)
class Pulls:
    """The downloads into one data folder. Methods raise DatabaseUnavailableError.

    Attributes:
        folder: identity of the data folder; other machines' share the database.
    """

    database: Database
    data_dir: Path
    folder: str = ""
    clock: Callable[[], float] = time.time
    new_id: Callable[[], str] = lambda: secrets.token_hex(12)

    def ask(self, plan: Plan) -> tuple[Pull, bool]:
        """Queue a download, and say whether it is new. One of the name that has not ended is it.

        Earlier ones of the name are forgotten; what they brought is kept if it is of this one.
        """
        with self.database.write() as session:
            same = self._mine().where(PullRow.kind == plan.kind, PullRow.name == plan.name)
            earlier = session.scalars(same).all()
            for row in earlier:
                if row.status in ACTIVE:
                    return _view(row), False
            for row in earlier:
                if self.data_dir / row.unfinished != plan.unfinished:
                    discard(self.data_dir / row.unfinished)
                session.delete(row)
            row = PullRow(
                id=self.new_id(),
                source=plan.pinned.source,
                wanted=json.dumps(asdict(plan.pinned)),
                kind=plan.kind,
                name=plan.name,
                title=plan.title,
                folder=self.folder,
                target=str(plan.target.relative_to(self.data_dir)),
                unfinished=str(plan.unfinished.relative_to(self.data_dir)),
                status=JobStatus.QUEUED,
                done_bytes=plan.here_bytes(),
                total_bytes=plan.total_bytes,
                restarts=0,
                cancel_requested=False,
                created_at=self.clock(),
            )
            session.add(row)
            session.flush()
            return _view(row), True

    def all(self) -> list[Pull]:
        """All that are known, the newest first."""
        with self.database.read() as session:
            rows = session.scalars(self._mine().order_by(PullRow.sequence.desc()))
            return [_view(row) for row in rows]

    def find(self, pull_id: str) -> Pull:
        """One download; UnknownPullError if there is none of the id."""
        with self.database.read() as session:
            return _view(self._row(session, pull_id))

    def stop(self, pull_id: str) -> Pull:
        """Cancel a download, or take one that has ended off the list.

        What has arrived of it is removed: at once, or by who works on it.

        Raises:
            UnknownPullError: there is none of the id.
        """
        with self.database.write() as session:
            row = self._row(session, pull_id)
            if row.status == JobStatus.RUNNING:
                row.cancel_requested = True
                return _view(row)
            if row.status in (JobStatus.QUEUED, JobStatus.FAILED):
                discard(self.data_dir / row.unfinished)
            if row.status == JobStatus.QUEUED:
                row.status, row.finished_at = JobStatus.CANCELLED, self.clock()
                return _view(row)
            session.delete(row)
            return _view(row)

    def begin(self) -> PullJob | None:
        """Take the oldest that is queued; None if there is none."""
        with self.database.write() as session:
            oldest = self._mine().where(PullRow.status == JobStatus.QUEUED)
            row = session.scalar(oldest.order_by(PullRow.sequence).limit(1))
            if row is None:
                return None
            row.status = JobStatus.RUNNING
            row.bytes_per_second = None
            return PullJob(
                row.id,
                Wanted(**json.loads(row.wanted)),
                self.data_dir / row.target,
                self.data_dir / row.unfinished,
                row.restarts,
                row.done_bytes,
            )

    def progress(self, pull_id: str, done_bytes: int, bytes_per_second: float | None) -> bool:
        """Record how far one is. Returns whether it is to be cancelled."""
        with self.database.write(durable=False) as session:
            row = self._row(session, pull_id)
            if done_bytes > row.done_bytes:
                row.restarts = 0
            row.done_bytes, row.bytes_per_second = done_bytes, bytes_per_second
            return row.cancel_requested

    def end(self, pull_id: str, status: JobStatus, error: Problem | None = None) -> None:
        """Record how one ended, and forget the oldest that have."""
        with self.database.write() as session:
            row = self._row(session, pull_id)
            row.status, row.finished_at, row.bytes_per_second = status, self.clock(), None
            row.error = None if error is None else error.model_dump_json(exclude_none=True)
            if status is JobStatus.SUCCEEDED:
                row.done_bytes = row.total_bytes
            elif status is JobStatus.FAILED:
                row.done_bytes = size_of(self.data_dir / row.unfinished)
            session.flush()
            ended = self._mine().where(PullRow.status.not_in(ACTIVE))
            old = ended.order_by(PullRow.sequence.desc()).offset(KEPT)
            for each in session.scalars(old).all():
                session.delete(each)

    def put_back(self, pull_id: str | None = None, *, died: bool = False) -> None:
        """Queue one that runs again, or all; `died` counts it as a death of its process."""
        with self.database.write() as session:
            mine = (PullRow.folder == self.folder, PullRow.status == JobStatus.RUNNING)
            running = update(PullRow).where(*mine)
            if pull_id is not None:
                running = running.where(PullRow.id == pull_id)
            restarts = PullRow.restarts + int(died)
            queued = {"status": JobStatus.QUEUED, "bytes_per_second": None, "restarts": restarts}
            session.execute(running.values(**queued))

    def _mine(self) -> Select[PullRow]:
        return select(PullRow).where(PullRow.folder == self.folder)

    def _row(self, session: Session, pull_id: str) -> PullRow:
        row = session.scalar(self._mine().where(PullRow.id == pull_id))
        if row is None:
            raise UnknownPullError(f"there is no download {pull_id}")
        return row


def _view(row: PullRow) -> Pull:
    return Pull(
        id=row.id,
        source=row.source,
        kind=row.kind,
        name=row.name,
        title=row.title,
        status=JobStatus(row.status),
        done_bytes=row.done_bytes or 0,
        total_bytes=row.total_bytes,
        bytes_per_second=row.bytes_per_second,
        error=None if row.error is None else Problem.model_validate_json(row.error),
        created_at=timestamp(row.created_at),
        finished_at=None if row.finished_at is None else timestamp(row.finished_at),
        url=f"/pulls/{row.id}",
    )
