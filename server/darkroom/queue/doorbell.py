"""How one process learns of another's changes: a doorbell wakes it, and it reads the event log.

On one machine a doorbell is a datagram socket in the data folder, or in /tmp where the folder's
file system takes no sockets (SMB, SSHFS, exFAT). With PostgreSQL, rings go through the database
server, see `server_doorbells`. No ring has to arrive: listeners also poll.
"""

import contextlib
import math
import os
import secrets
import select
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import structlog
from sqlalchemy.engine import URL

from darkroom.config import Settings
from darkroom.queue.store import Store
from darkroom.responses import Event
from darkroom.storage.database import place_of

log = structlog.get_logger()

_MAX_SOCKET_PATH = 100  # bytes; the kernel takes 108 with the terminator (man 7 unix)

Role = Literal["web", "worker"]


class Doorbell:
    """Where a process waits for rings."""

    def __init__(self) -> None:
        self._hearing, self._ringing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hearing.setblocking(False)
        self._ringing.setblocking(False)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a ring or the timeout. Returns whether there was a ring."""
        if not wait_for(self._hearing.fileno(), timeout_s=timeout_s):
            return False
        with contextlib.suppress(BlockingIOError):
            while self._hearing.recv(16):
                pass
        return True

    def ring(self) -> None:
        """Wake the thread that waits here. From any thread."""
        with contextlib.suppress(OSError):  # it has enough rings, or is closed
            self._ringing.send(b"!")

    def fileno(self) -> int:
        """Its descriptor, readable once it has rung."""
        return self._hearing.fileno()

    def close(self) -> None:
        self._hearing.close()
        self._ringing.close()

    def __enter__(self) -> "Doorbell":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def wait_for(*files: int, timeout_s: float | None = None) -> bool:
    """Sleep until one of the descriptors is readable. Returns whether one is.

    `select.select` takes no descriptors from 1024 on, and web may have ten thousand connections.
    """
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))


class Doorbells(Protocol):
    """The doorbells of all processes that work on one queue. From any thread."""

    def ring(self, role: Role) -> None:
        """Wake all processes of this role. Neither waits nor fails."""

    def listen(self, role: Role) -> Doorbell:
        """A doorbell that rings for this role until it is closed, and once when it can be heard.

        Raises:
            OSError: a socket cannot be created.
        """

    def close(self) -> None:
        """Send the rings that are under way, as far as that takes no longer than a moment."""


def doorbells(settings: Settings) -> Doorbells:
    """The doorbells of this server's processes."""
    place = place_of(settings)
    if isinstance(place, URL):
        from darkroom.queue.server_doorbells import ServerDoorbells

        return ServerDoorbells(place)
    return LocalDoorbells(settings.data_dir)


class LocalDoorbells:
    """Sockets in the data folder, one a listener."""

    def __init__(self, data_dir: Path) -> None:
        digest = sha256(os.fsencode(data_dir)).hexdigest()[:24]
        self._folders = (data_dir, Path(tempfile.gettempdir()) / f"darkroom-{digest}")

    def ring(self, role: Role) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell:
            for path in self._paths(role):
                try:
                    bell.sendto(b"!", str(path))
                except ConnectionRefusedError:  # its process died; another has another name
                    with contextlib.suppress(OSError):
                        path.unlink()
                except OSError:
                    pass  # closed just now, or it has enough rings

    def _paths(self, role: Role) -> Iterator[Path]:
        for folder in self._folders:
            yield from folder.glob(f"{role}.*bell")

    def listen(self, role: Role) -> Doorbell:
        name = f"{role}.{secrets.token_hex(4)}.bell"
        there, elsewhere = (folder / name for folder in self._folders)
        if len(os.fsencode(there)) <= _MAX_SOCKET_PATH:
            with contextlib.suppress(OSError):
                return _BoundDoorbell(there)
        elsewhere.parent.mkdir(mode=0o700, exist_ok=True)
        return _BoundDoorbell(elsewhere)

    def close(self) -> None:
        """Nothing is under way."""


class _BoundDoorbell(Doorbell):
    def __init__(self, path: Path) -> None:
        self._path = path
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self._hearing = socket.socket(socket.AF_UNIX, kind)
        self._ringing = socket.socket(socket.AF_UNIX, kind)
        try:
            self._hearing.bind(str(path))
            self._ringing.connect(str(path))
        except OSError:
            super().close()
            raise
        self.ring()

    def close(self) -> None:
        super().close()
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
        """Stop. `hear` is not called after this returns."""
        self._stopping.set()
        self._bell.ring()
        self.join()
