"""Which jobs that have not ended need a file, so that nobody takes it from under them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from darkroom.errors import DarkroomError
from darkroom.responses import JobStatus
from darkroom.storage.database import Database
from darkroom.storage.tables import JobRow

ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


class InUseError(DarkroomError):
    """Jobs that have not ended need it.

    Attributes:
        jobs: how many.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(f"{jobs} jobs need it")
        self.jobs = jobs


@contextmanager
def unused(database: Database, needs: Callable[[str, Mapping[str, Any]], bool]) -> Iterator[None]:
    """Context in which no job begins or is accepted, and none needs what `needs` looks for.

    Args:
        database: is written to by nobody else meanwhile, so be quick.
        needs: whether a job needs it, by its model and its request.

    Raises:
        InUseError: a job does.
    """
    with database.write() as session:
        active = select(JobRow.model, JobRow.request).where(JobRow.status.in_(ACTIVE))
        jobs = sum(needs(row.model, json.loads(row.request)) for row in session.execute(active))
        if jobs:
            raise InUseError(jobs)
        yield
