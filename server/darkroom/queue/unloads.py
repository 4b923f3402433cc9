"""Requests to take models out of memory: web writes them, every worker reads them."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select

from darkroom.errors import DarkroomError
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from darkroom.storage.tables import JobRow, UnloadRow

KEPT = 100  # requests that a worker may still have to read


class ModelInUseError(DarkroomError):
    """Jobs of the model run now."""


@dataclass(frozen=True)
class Unloads:
    """The requests, numbered from 1. Methods raise DatabaseUnavailableError."""

    database: Database

    def ask(self, model: str) -> None:
        """Ask all workers to take a model out of memory.

        Raises:
            ModelInUseError: a job of it runs.
        """
        with self.database.write() as session:
            running = (JobRow.status == JobStatus.RUNNING, JobRow.model == model)
            if session.scalar(select(JobRow.id).where(*running).limit(1)) is not None:
                raise ModelInUseError(model)
            row = UnloadRow(model=model)
            session.add(row)
            session.flush()
            session.execute(delete(UnloadRow).where(UnloadRow.id <= row.id - KEPT))

    def newest(self) -> int:
        """The number of the newest request, or 0."""
        with self.database.read() as session:
            return session.scalar(select(func.max(UnloadRow.id))) or 0

    def after(self, number: int) -> list[tuple[int, str]]:
        """Later requests, the oldest first: their numbers and models."""
        query = select(UnloadRow.id, UnloadRow.model).where(UnloadRow.id > number)
        with self.database.read() as session:
            return [(row.id, row.model) for row in session.execute(query.order_by(UnloadRow.id))]
