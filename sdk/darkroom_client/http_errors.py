"""The HTTP library's errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from darkroom_client.core.errors import ConnectionFailedError, UnexpectedResponseError


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the HTTP library raises inside as an error of this library.

    Raises:
        ConnectionFailedError: no connection, or it broke, or was silent for too long.
        UnexpectedResponseError: what came is not HTTP as we know it.
    """
    try:
        yield
    except httpx2.TransportError as error:
        raise ConnectionFailedError(str(error) or type(error).__name__) from error
    except httpx2.RequestError as error:
        raise UnexpectedResponseError(str(error)) from error
