"""Waiting for what comes to be a moment later."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0  # the machine may be slow, and busy

Found = TypeVar("Found")


def eventually(
    look: Callable[[], Found],
    *,
    every_s: float = 0.02,
    patience_s: float = PATIENCE_S,
    about: Callable[[], object] | None = None,
) -> Found:
    """What `look` returns once that is true. Until then it is called again and again.

    A test waits so for exactly what it asserts next: a log line, an event and a record of one
    thing are not written at the same moment.

    Args:
        look: returns something false, such as None or an empty list, while there is nothing yet.
        every_s: how long to wait between two calls.
        patience_s: how long to call in all.
        about: what helps to understand why it never came to be.

    Raises:
        TimeoutError: it never came to be.
    """
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > deadline:
            told = "" if about is None else f":\n{about()}"
            raise TimeoutError(f"it is {found!r} after {patience_s:.0f} s{told}")
        time.sleep(every_s)
    return found
