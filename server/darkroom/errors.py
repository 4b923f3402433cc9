"""The base of this package's exceptions, and what their messages share."""

import difflib
import re
from collections.abc import Iterable

# Absolute paths of at least two parts: in quotes, where they may have spaces, and bare. No URLs.
_PATH = re.compile(
    r"""(?P<quote>['"])/[^'"]*/(?P<quoted>[^'"/]*)(?P=quote)"""
    r"""|(?<![\w.:/])/(?:[^\s'"/:]+/)+(?P<bare>[^\s'"/:,;)\]]*)"""
)


class DarkroomError(Exception):
    """Base of every exception class in this package.

    Subclasses keep a built-in second base (`ValueError`, `OSError`) where callers catch that.
    """


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known one, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def without_paths(text: str) -> str:
    """A message with only the last part of each absolute path: callers learn no folders."""
    return _PATH.sub(lambda found: found["quoted"] or found["bare"] or "…", text)
