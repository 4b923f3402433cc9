"""How one process learns of another's changes: a doorbell wakes it, and it reads the event log.

The doorbell is a datagram socket in the data folder, or in /tmp where the folder's file system
takes no sockets (SMB, SSHFS, exFAT). No ring has to arrive: listeners also poll.
"""

import contextlib
import os
import select
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import structlog

from darkroom.queue.store import Store
from darkroom.responses import Event

log = structlog.get_logger()

_MAX_SOCKET_PATH = 100  # bytes; the kernel takes 108 with the terminator (man 7 unix)


def address(data_dir: Path, name: str) -> Path:
    """The socket's path: in the data folder, or in /tmp if that path is too long."""
    path = data_dir / f"{name}.bell"
    return path if len(os.fsencode(path)) <= _MAX_SOCKET_PATH else _elsewhere(path)


def _elsewhere(path: Path) -> Path:
    digest = sha256(os.fsencode(path)).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"darkroom-{digest}.bell"


def ring(path: Path) -> None:
    """Wake the process that listens at `path`, if there is one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell:
        for place in (path, _elsewhere(path)):
            with contextlib.suppress(OSError):
                bell.sendto(b"!", str(place))
                return


class Doorbell:
    """Listens for rings. A second listener at the same path replaces the first.

    Raises:
        OSError: the socket cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._path = self._bind(path)
        except OSError:
            self._path = self._bind(_elsewhere(path))

    def _bind(self, path: Path) -> Path:
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        return path

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a ring or the timeout. Returns whether there was a ring."""
        readable, _, _ = select.select([self._socket], [], [], timeout_s)
        if not readable:
            return False
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        return True

    def ring(self) -> None:
        """Wake the thread that waits here. From any thread."""
        ring(self._path)

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


class Tail(threading.Thread):
    """A thread that follows the event log, beginning with the events after its creation.

    Args:
        bell: rings when events were written.
        poll_s: seconds between two reads without a ring.
        hear: called in this thread with new events, the oldest first, each once.
    """

    def __init__(
        self, store: Store, bell: Doorbell, poll_s: float, hear: Callable[[Sequence[Event]], None]
    ) -> None:
        super().__init__(name="event tail", daemon=True)
        self._store = store
        self._bell = bell
        self._poll_s = poll_s
        self._hear = hear
        self._stopping = threading.Event()
        self._last_id = store.last_event_id()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._bell.wait(self._poll_s)
            try:
                while events := self._store.events_after(self._last_id):
                    self._hear(events)
                    self._last_id = events[-1].id
            except Exception:
                log.exception("event log cannot be read")
                self._stopping.wait(1.0)

    def stop(self) -> None:
        """Stop. `hear` is not called after this returns, which takes up to `poll_s`."""
        self._stopping.set()
        self.join()
