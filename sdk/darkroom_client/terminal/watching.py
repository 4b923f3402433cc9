"""Watching a job on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from darkroom_client.blocking.job import Job
from darkroom_client.core.descriptions import duration, words
from darkroom_client.core.events import AnyEvent, NoteEvent, PreviewEvent, ProgressEvent
from darkroom_client.terminal import inline
from darkroom_client.terminal.plain import plain

PREVIEW_ROWS = 12

ShowEvent = Callable[[AnyEvent[Any]], None]


def follow(job: Job, timeout_s: float | None = None) -> None:
    """Wait for a job's end and show on standard error how it comes along."""
    console = Console(stderr=True, highlight=False, markup=False)
    with _bar(console) if console.is_terminal else _lines(console) as show:
        for event in job.events(timeout_s):
            show(event)


@contextmanager
def _lines(console: Console) -> Iterator[ShowEvent]:
    """For logs and pipes: a line for each thing that happens."""

    def show(event: AnyEvent[Any]) -> None:
        said = words(event)
        if said is not None:
            left = duration(getattr(event, "eta_seconds", None))
            console.print(
                f"{event.job_id}: {plain(said)}{f', {left}' if left else ''}", soft_wrap=True
            )

    yield show


@contextmanager
def _bar(console: Console) -> Iterator[ShowEvent]:
    """For people: one bar, above it the preview where the terminal can show one."""
    columns = (TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.fields[left]}"))
    encode = inline.encoder()
    if encode is not None:
        console.print("\n" * PREVIEW_ROWS, end="")
    # It is drawn when something happens only: a thread would draw into the preview.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        bar = progress.add_task("waiting", total=None, left="")
        yield lambda event: _draw(progress, bar, encode, event)


def _draw(
    progress: Progress, bar: TaskID, encode: inline.Encode | None, event: AnyEvent[Any]
) -> None:
    console = progress.console
    match event:
        case PreviewEvent(index=0, data=data) if encode is not None:
            _show(console, encode, data)
        case ProgressEvent(progress=made):
            progress.update(bar, completed=made.step, total=made.steps)
        case NoteEvent(note=note):
            console.print(f"note: {plain(note)}")
    said = words(event)
    if said is not None and not isinstance(event, NoteEvent):
        left = duration(getattr(event, "eta_seconds", None))
        progress.update(bar, description=said, left=left)
    progress.refresh()


def _show(console: Console, encode: inline.Encode, picture: bytes) -> None:
    """Draw into the rows above the bar, and put the cursor back."""
    try:
        escapes = encode(picture, PREVIEW_ROWS)
    except (ImportError, OSError):  # no Pillow, or not a picture: the bar does
        return
    console.file.write(f"\x1b7\r\x1b[{PREVIEW_ROWS}A{escapes}\x1b8")
    console.file.flush()
