"""Which certificates a server may show."""

import os
import ssl
from pathlib import Path

VARIABLE = "DARKROOM_CA"


def context(ca: str | Path | None) -> ssl.SSLContext | bool:
    """What the HTTP client takes for `verify`.

    Args:
        ca: a file (PEM) with the root certificates to trust instead of the usual ones; None takes
            DARKROOM_CA of the environment, else the usual ones.

    Raises:
        ValueError: there are no certificates in it.
    """
    file = ca or os.environ.get(VARIABLE)
    if not file:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # which ssl.SSLError is, too
        raise ValueError(f"{file} holds no certificate to trust: {error}") from None
