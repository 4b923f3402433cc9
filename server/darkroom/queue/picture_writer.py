"""Encodes and stores finished pictures, in one thread beside the worker's loop."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from darkroom.engine.base import ImageReady
from darkroom.queue.running_job import Running
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.files import Files, FilesUnavailableError
from darkroom.storage.tables import ExplanationRow, ImageRow

log = structlog.get_logger()

Records = tuple[ImageRow, ExplanationRow | None]

MAX_WAITING = 4  # pictures; 4096² of one takes 50 MB and two seconds
RETRY_S = 1.0  # between attempts while the place of files is away


class PictureWriter:
    """Writes the files of pictures, one after the other, in the order in which they were added.

    All methods are called from one thread. It writes no records: `stored` returns what there is to
    record, and a picture that was not returned there has no record. While the place of files is
    away, it waits for it.

    Args:
        files: where pictures are stored.
        png_level: of PNG files, see `codec.encode`.
        on_stored: called in the writer's thread when a picture is stored or cannot be.
        check: raises LeaseLostError unless this worker still holds a job; asked in the writer's
            thread before a file of a job is replaced, which another worker may have written.
    """

    def __init__(
        self,
        files: Files,
        png_level: int,
        on_stored: Callable[[], None],
        check: Callable[[str], None],
    ) -> None:
        self._files = files
        self._check = check
        self._closing = threading.Event()
        self._png_level = png_level
        self._on_stored = on_stored
        self._thread = ThreadPoolExecutor(1, "pictures")
        self._waiting: deque[tuple[Running, Future[Records]]] = deque()  # the oldest first

    @property
    def is_behind(self) -> bool:
        """Whether so many pictures wait that no more should be made."""
        return len(self._waiting) >= MAX_WAITING

    @property
    def oldest(self) -> Running | None:
        """The job of the picture that is being written."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, running: Running, event: ImageReady) -> None:
        """Have a picture written. `Running.unstored` counts it until it is recorded."""
        running.unstored += 1
        future = self._thread.submit(self._store, running, event)
        self._waiting.append((running, future))
        future.add_done_callback(lambda _: self._on_stored())

    def _store(self, running: Running, event: ImageReady) -> Records:
        def write(name: str, data: bytes) -> None:
            self._write(name, data, lambda: self._check(event.job_id))

        return running.store(event, write, self._png_level)

    def _write(self, name: str, data: bytes, may_replace: Callable[[], None]) -> None:
        """Write a file as soon as its place can be used.

        Raises:
            FilesUnavailableError, DatabaseUnavailableError: the writer has to end before that.
            LeaseLostError: raised by `check`.
        """
        while True:
            try:
                return self._files.write(name, data, may_replace)
            except (FilesUnavailableError, DatabaseUnavailableError) as error:
                log.warning("a picture cannot be stored yet", reason=str(error))
                if self._closing.wait(RETRY_S):
                    raise

    def stored(self) -> Iterator[tuple[Running, Future[Records]]]:
        """Each written picture once: its job, and its records or the error that hindered them."""
        while self._waiting and self._waiting[0][1].done():
            yield self._waiting.popleft()

    def close(self, *, finish: bool) -> None:
        """End the thread.

        Args:
            finish: write all pictures first; else only the one that was begun. The others are
                forgotten, and `Running.unstored` still counts them. None waits for its place.
        """
        self._closing.set()
        self._thread.shutdown(cancel_futures=not finish)
        self._waiting = deque(item for item in self._waiting if not item[1].cancelled())
