"""The bar that a notebook shows while somebody waits for a job."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from darkroom_client.core.events import AnyEvent
from darkroom_client.core.records import JobRecord
from darkroom_client.notebook import page
from darkroom_client.notebook.look import Look

VARIABLE = "DARKROOM_PROGRESS"
PER_S = 4.0  # notebook servers cut off kernels that send much more than pictures at this rate
AT_ONCE = 8.0  # what happens together, as a step and its preview, is shown together

ShowEvent = Callable[[AnyEvent[Any]], None]


class Watched(Protocol):
    """A job that is renewed when it ends."""

    record: JobRecord


class Handle(Protocol):
    """One of IPython's displays that can be changed (`IPython.display.DisplayHandle`)."""

    def update(self, obj: dict[str, str], **kwargs: Any) -> None: ...


def wanted(progress: bool | None = None) -> bool:
    """Whether a bar is wanted where one can be shown.

    Args:
        progress: what the caller says; None takes DARKROOM_PROGRESS of the environment, 0 or 1,
            else yes.

    Raises:
        ValueError: the environment says something else.
    """
    if progress is not None:
        return progress
    said = os.environ.get(VARIABLE) or "1"
    if said not in ("0", "1"):
        raise ValueError(f"{VARIABLE} is 0 or 1, not {said!r}")
    return said == "1"


def kernel_runs() -> bool:
    """Whether this is a notebook's process. Imports nothing."""
    # Another thread may be importing it just now, so that it is there in part.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return getattr(get_ipython and get_ipython(), "kernel", None) is not None


@contextmanager
def shown(job: Watched, progress: bool, clock: Callable[[], float]) -> Iterator[ShowEvent]:
    """Show a bar for as long as somebody follows a job, if that is wanted and possible.

    A job that has ended gets none, for there is nothing to wait for.

    Args:
        job: its record says how it ended.
        progress: whether it is wanted.
        clock: seconds, never going back.

    Yields:
        What is to be called with each event, after the record was renewed for it.
    """
    if not progress or job.record.status.terminal or not kernel_runs():
        yield lambda _: None
        return
    bar = Bar(Look.of(job.record), clock)
    try:
        yield bar.show
    finally:
        bar.end(job.record)


class Bar:
    """One output of a notebook's cell, drawn anew when something happens.

    Not more often than a notebook takes it: a job that is found again replays all its events at
    once. What is left out shows with the next event or the end.

    Args:
        look: of the job now.
        clock: seconds, never going back.
    """

    def __init__(self, look: Look, clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._allowed = AT_ONCE
        self._counted_at = clock()
        self._handle = _display(_bundle(look))

    def show(self, event: AnyEvent[Any]) -> None:
        """Show what has happened."""
        self._look = self._look.after(event)
        now = self._clock()
        self._allowed = min(AT_ONCE, self._allowed + (now - self._counted_at) * PER_S)
        self._counted_at = now
        if self._allowed >= 1:
            self._allowed -= 1
            self._draw()

    def end(self, record: JobRecord) -> None:
        """Show how it ended, without pictures: those are the job's own to show."""
        over = record.status.terminal
        self._look = Look.of(record) if over else self._look.left_alone()
        self._draw()

    def _draw(self) -> None:
        self._handle.update(_bundle(self._look), raw=True)


def _bundle(look: Look) -> dict[str, str]:
    """By media type, so that a frontend takes what it can show."""
    return {"text/html": page.html(look), "text/plain": page.line(look)}


def _display(bundle: dict[str, str]) -> Handle:
    """A new output in the running cell."""
    from IPython.display import display

    show: Callable[..., Handle] = display
    return show(bundle, raw=True, display_id=True)
