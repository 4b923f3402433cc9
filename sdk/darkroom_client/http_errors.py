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
        reason = str(error) or type(error).__name__
        raise ConnectionFailedError(f"{_server(error)}{reason}") from error
    except httpx2.RequestError as error:
        raise UnexpectedResponseError(str(error)) from error


def _server(error: httpx2.RequestError) -> str:
    """The server that was asked, to stand before the reason; empty if it is not known."""
    try:
        url = error.request.url
    except RuntimeError:
        return ""
    return f"{url.scheme}://{url.netloc.decode()}: "
