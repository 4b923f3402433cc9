"""How one process learns of another's changes: a doorbell wakes it, and it reads the event log.

A doorbell is a datagram socket in the data folder, or in /tmp where the folder's file system takes
no sockets (SMB, SSHFS, exFAT). Each process has its own, and a ring wakes all at one address: every
worker, or every web process, of a data folder. No ring has to arrive: listeners also poll.
"""

import contextlib
import errno
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

import structlog

from darkroom.queue.store import Store
from darkroom.responses import Event

log = structlog.get_logger()

_MAX_SOCKET_PATH = 100  # bytes; the kernel takes 108 with the terminator (man 7 unix)


def address(data_dir: Path, name: str) -> Path:
    """Where the processes of a kind, `web` or `worker`, listen: how their sockets' paths begin."""
    return data_dir / name


def _elsewhere(address: Path) -> Path:
    """The folder of sockets that cannot be at an address."""
    digest = sha256(os.fsencode(address)).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"darkroom-{digest}"


def _bells(address: Path) -> Iterator[Path]:
    """The sockets at an address, also those of processes that were killed."""
    for folder, start in ((address.parent, f"{address.name}-"), (_elsewhere(address), "")):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(start) and entry.name.endswith(".bell"):
                    yield Path(entry.path)


def ring(address: Path) -> None:
    """Wake the processes that listen at an address, if there are any."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell:
        for path in _bells(address):
            _ring(bell, path)


def _ring(bell: socket.socket, path: Path) -> None:
    try:
        bell.sendto(b"!", str(path))
    except ConnectionRefusedError:  # its process was killed; no other has its name
        with contextlib.suppress(OSError):
            path.unlink()
    except OSError:  # it was rung enough already, or has just ended
        pass


class Doorbell:
    """Listens for rings at an address, as other processes may too.

    Raises:
        OSError: the socket cannot be created.
    """

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        name = f"{secrets.token_hex(4)}.bell"
        self._path = address.parent / f"{address.name}-{name}"
        try:
            if len(os.fsencode(self._path)) > _MAX_SOCKET_PATH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            self._socket.bind(str(self._path))
        except OSError:
            folder = _elsewhere(address)
            folder.mkdir(exist_ok=True)
            self._path = folder / name
            self._socket.bind(str(self._path))

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
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell:
            _ring(bell, self._path)

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
