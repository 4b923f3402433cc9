"""Sends requests and saves the images, with a few jobs in flight at a time."""

import json
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from darkroom_client.blocking.client import Client
from darkroom_client.blocking.job import Job
from darkroom_client.core.errors import (
    DarkroomError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
)
from darkroom_client.core.records import JobRecord
from darkroom_client.terminal.batch import Asked
from darkroom_client.terminal.exit_codes import Interrupted, print_note, report
from darkroom_client.terminal.file_names import STDOUT, FileNames
from darkroom_client.terminal.plain import jsonable
from darkroom_client.terminal.watching import follow

OWN_FAULT = (InvalidRequestError, JobFailedError, JobCancelledError)
"""What ends one job, and says nothing of the next."""


@dataclass(frozen=True)
class ResponseOptions:
    """How jobs are run.

    Attributes:
        watch: show how each comes along.
        as_json: print each job's record instead of the names of its files.
        wait: for the pictures; else only for the job's acceptance.
        timeout_s: for each job's end, or None.
        at_once: jobs on their way at a time.
    """

    watch: bool = False
    as_json: bool = False
    wait: bool = True
    timeout_s: float | None = None
    at_once: int = 4


class Run:
    """Runs requests in their order. Ctrl-C cancels what has not ended.

    Args:
        client: of the server.
        names: of the files.
        options: how.
    """

    def __init__(self, client: Client, names: FileNames, options: ResponseOptions) -> None:
        self._client = client
        self._naming = names
        self._manner = options
        self._open: deque[tuple[int, Asked, Job]] = deque()
        self._failed = 0

    def all(self, requests: Sequence[Asked]) -> int:
        """Run them, and return how many failed. A single one's failure is raised instead.

        Raises:
            DarkroomError: nothing can go on, or the only request failed.
            Interrupted: by Ctrl-C.
            OSError: a file cannot be read or written.
        """
        try:
            for number, asked in enumerate(requests):
                self._begin(number, asked)
                if len(self._open) >= self._manner.at_once:
                    self._end_first()
            while self._open:
                self._end_first()
        except KeyboardInterrupt:
            raise Interrupted(self._cancelled()) from None
        return self._failed

    def _begin(self, number: int, asked: Asked) -> None:
        try:
            job = self._client.submit(asked.request)
        except InvalidRequestError as error:
            self._fail(asked, error)
            return
        if self._manner.wait:
            self._open.append((number, asked, job))
        else:
            self._print(job.record, [])

    def _end_first(self) -> None:
        number, asked, job = self._open[0]
        try:
            if self._manner.watch:
                follow(job, self._manner.timeout_s)
            job.wait(self._manner.timeout_s)
        except OWN_FAULT as error:
            if self._manner.as_json:
                self._print(job.record, [])
            self._fail(asked, error)
        else:
            self._print(job.record, self._save(job, number))
        self._open.popleft()

    def _save(self, job: Job, number: int) -> list[Path]:
        if self._naming.output == STDOUT:
            sys.stdout.buffer.write(job.images[0].bytes())
            return []
        files = []
        for index, image in enumerate(job.images):
            try:
                files.append(image.save(self._naming.file(job, number, index)))
            except OSError as error:
                again = f"darkroom-client image {image.id} -o FILE"
                raise OSError(f"{error}; the server keeps the picture: {again}") from error
        return files

    def _print(self, job: JobRecord, files: list[Path]) -> None:
        if self._manner.as_json:
            click.echo(json.dumps({**jsonable(job), "files": [str(file) for file in files]}))
            return
        for note in job.notes:
            print_note(f"note: {note}")
        for file in files:
            click.echo(file)
        if not self._manner.wait:
            click.echo(job.id)

    def _fail(self, asked: Asked, error: DarkroomError) -> None:
        if self._naming.jobs == 1:
            raise error
        self._failed += 1
        print_note(f"{asked.name}:")
        report(error)

    def _cancelled(self) -> str:
        """Cancel what has not ended, and say what became of it."""
        if not self._open:
            return "interrupted; `darkroom-client jobs` shows whether a job was made before"
        said = []
        for _, _, job in self._open:
            try:
                said.append(f"job {job.id} is {job.cancel().status}")
            except DarkroomError as error:
                said.append(f"job {job.id} could not be cancelled, and goes on: {error}")
        return f"interrupted; {'; '.join(said)}"
