"""The base of this package's exceptions, and what their messages share."""

import difflib
from collections.abc import Iterable


class DarkroomError(Exception):
    """Base of every exception class in this package.

    Subclasses keep a built-in second base (`ValueError`, `OSError`) where callers catch that.
    """


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known one, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
