"""Work that holds up nobody but the caller, who waits for it."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it here and now."""
    return work(*args, **kwargs)
