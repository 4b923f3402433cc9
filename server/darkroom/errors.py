"""The base of this package's exceptions. A file of its own because every layer imports it."""


class DarkroomError(Exception):
    """Base of every exception class in this package.

    Subclasses keep a built-in second base (`ValueError`, `OSError`) where callers catch that.
    """
