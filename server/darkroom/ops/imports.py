"""Importing much at once, and keeping it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports() -> Iterator[None]:
    """Import inside, at the start of a process that lives long.

    Modules make much and throw away little: looking for garbage meanwhile finds none, and takes a
    fifth of the worker's imports. What is there afterwards stays, and is not looked through again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
