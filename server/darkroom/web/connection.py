"""Whether anybody is still there at the other end."""

import select
import socket

from flask import request

LOOK_FOR_CALLER_S = 0.25  # how often who waits for a job looks whether its own caller still waits


def caller_is_gone() -> bool:
    """Whether the caller has closed the connection, as far as this server's socket knows."""
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
