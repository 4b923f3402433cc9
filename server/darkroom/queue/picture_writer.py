"""Encodes and stores finished pictures, in one thread beside the worker's loop."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from darkroom.engine.base import ImageReady
from darkroom.queue.running_job import Running
from darkroom.storage.files import Files
from darkroom.storage.tables import ExplanationRow, ImageRow

Records = tuple[ImageRow, ExplanationRow | None]

MAX_WAITING = 4  # pictures; 4096² of one takes 50 MB and two seconds


class PictureWriter:
    """Writes the files of pictures, one after the other, in the order in which they were added.

    All methods are called from one thread. It writes no records: `stored` returns what there is to
    record, and a picture that was not returned there has no record.

    Args:
        files: where pictures are stored.
        png_level: of PNG files, see `codec.encode`.
        on_stored: called in the writer's thread when a picture is stored or cannot be.
    """

    def __init__(self, files: Files, png_level: int, on_stored: Callable[[], None]) -> None:
        self._files = files
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
        future = self._thread.submit(running.store, event, self._files, self._png_level)
        self._waiting.append((running, future))
        future.add_done_callback(lambda _: self._on_stored())

    def stored(self) -> Iterator[tuple[Running, Future[Records]]]:
        """Each written picture once: its job, and its records or the error that hindered them."""
        while self._waiting and self._waiting[0][1].done():
            yield self._waiting.popleft()

    def close(self, *, finish: bool) -> None:
        """End the thread.

        Args:
            finish: write all pictures first; else only the one that was begun. The others are
                forgotten, and `Running.unstored` still counts them.
        """
        self._thread.shutdown(cancel_futures=not finish)
        self._waiting = deque(item for item in self._waiting if not item[1].cancelled())
