"""Descriptions of a job's events for people."""

from typing import Any

from darkroom_client.core.events import (
    AnyEvent,
    NoteEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
)


def duration(seconds: float | None) -> str:
    """A time left, in as few words as it needs."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    return f"{whole} s left" if whole < 120 else f"{whole // 60} min {whole % 60:02} s left"


def words(event: AnyEvent[Any]) -> str | None:
    """What an event says in a line, or None where it has nothing for readers.

    A note is the server's text as it came. The caller escapes it before showing it.
    """
    match event:
        case QueuedEvent(position=position) if position:
            return f"waiting, {position} ahead"
        case QueuedEvent():
            return "waiting, next in turn"
        case StartedEvent(attempt=attempt):
            return "developing" if attempt == 1 else f"developing, attempt {attempt}"
        case ProgressEvent(progress=progress):
            return f"step {progress.step} of {progress.steps}"
        case NoteEvent(note=note):
            return f"note: {note}"
    return None
