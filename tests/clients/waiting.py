"""Waiting for something that a client can see."""

import time
from collections.abc import Callable

PATIENCE_S = 60


def until(seen: Callable[[], bool]) -> None:
    """Ask again and again, as clients do, until the answer is yes."""
    deadline = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
