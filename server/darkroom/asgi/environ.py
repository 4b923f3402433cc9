"""From an ASGI request to a WSGI environment (PEP 3333)."""

import sys
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from uvicorn._types import HTTPScope

Environ = dict[str, Any]

MAPPED = "::ffff:"  # how a socket of both families shows an IPv4 address (RFC 4291, 2.5.5.2)
UNPREFIXED = {"CONTENT_TYPE", "CONTENT_LENGTH"}


def environ_of(scope: HTTPScope, body: IO[bytes], size: int) -> Environ:
    """The environment of a request whose body has been read.

    Headers with an underscore in their name are left out: they could not be told from those with a
    dash, which mean something.

    Args:
        scope: of the request.
        body: at its beginning.
        size: of the body in bytes; stands in for `Content-Length` and `Transfer-Encoding`.
    """
    server = scope["server"] or ("localhost", 80)
    client = scope["client"] or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "REQUEST_URI": scope["raw_path"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0].removeprefix(MAPPED),
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        name = name if name in UNPREFIXED else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        joint = "; " if name == "HTTP_COOKIE" else ","  # RFC 9110, 5.3; RFC 6265, 5.4
        environ[name] = f"{environ[name]}{joint}{value}" if name in environ else value
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_LENGTH"] = str(size)
    return environ
