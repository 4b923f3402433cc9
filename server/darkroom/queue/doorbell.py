"""A datagram socket in the data folder by which one process wakes another.

No ring has to arrive: every listener also polls.
"""

import contextlib
import os
import select
import socket
import tempfile
from hashlib import sha256
from pathlib import Path
from types import TracebackType

_MAX_SOCKET_PATH = 100  # bytes; the kernel takes 108 with the terminator (man 7 unix)


def address(data_dir: Path, name: str) -> Path:
    """The socket's path: in the data folder, or in /tmp if that path is too long."""
    path = data_dir / f"{name}.bell"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    digest = sha256(os.fsencode(path)).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"darkroom-{digest}.bell"


def ring(path: Path) -> None:
    """Wake the process that listens at `path`, if there is one."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell,
    ):
        bell.sendto(b"!", str(path))


class Doorbell:
    """Listens for rings. A second listener at the same path replaces the first.

    Raises:
        OSError: the socket cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a ring or the timeout. Returns whether there was a ring."""
        readable, _, _ = select.select([self._socket], [], [], timeout_s)
        if not readable:
            return False
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        return True

    def __enter__(self) -> "Doorbell":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
