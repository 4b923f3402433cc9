"""The base of this package's exceptions, and what their messages share."""

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Self

# Absolute paths of at least two parts: in quotes, where they may have spaces, and bare. No URLs.
_PATH = re.compile(
    r"""(?P<quote>['"])/[^'"]*/(?P<quoted>[^'"/]*)(?P=quote)"""
    r"""|(?<![\w.:/])/(?:[^\s'"/:]+/)+(?P<bare>[^\s'"/:,;)\]]*)"""
)

LONGEST_NAME = 100  # characters of a name that a caller sent, to be compared and repeated


class DarkroomError(Exception):
    """Base of every exception class in this package.

    Subclasses keep a built-in second base (`ValueError`, `OSError`) where callers catch that.
    """


Value = str | int | float


class Message(str):
    """An English sentence with a code and the values in it, so that clients can translate it.

    Everything that does not know it takes it as text.
    """

    __slots__ = ("code", "values")
    code: str
    values: Mapping[str, Value]

    def __new__(
        cls, text: str, code: str = "", values: Mapping[str, Value] = MappingProxyType({})
    ) -> Self:
        made = super().__new__(cls, text)
        made.code, made.values = code, dict(values)
        return made

    def told_by(self, reason: str) -> "Message":
        """This text with the code and values of the reason in it, if that has a code."""
        if isinstance(reason, Message) and reason.code:
            return Message(str(self), reason.code, reason.values)
        return self


def message(code: str, template: str, **values: Value) -> Message:
    """A sentence from a template with `{names}`. Codes never change their meaning."""
    return Message(template.format(**values), code, values)


def text_of(error: BaseException) -> str:
    """An exception's text: the `Message` that it was raised with, if it was."""
    first = error.args[0] if error.args else ""
    return first if isinstance(first, Message) else str(error)


def fault(error: BaseException) -> Message:
    """What is said of an exception that nobody expected."""
    return message("fault", "{error}", error=f"{type(error).__name__}: {error}")


def shortened(name: str) -> str:
    """A name that a caller sent, as messages repeat it."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known one, or nothing.

    Comparing takes time and memory in proportion to the name's length, which callers choose.
    """
    if len(name) > LONGEST_NAME:
        return ""
    close = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def without_paths(text: str) -> str:
    """A message with only the last part of each absolute path: callers learn no folders."""
    if isinstance(text, Message):
        values = {
            name: without_paths(value) if isinstance(value, str) else value
            for name, value in text.values.items()
        }
        return Message(without_paths(str(text)), text.code, values)
    return _PATH.sub(lambda found: found["quoted"] or found["bare"] or "…", text)
