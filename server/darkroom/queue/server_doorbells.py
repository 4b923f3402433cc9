"""Doorbells over PostgreSQL's LISTEN and NOTIFY, for processes on any number of hosts."""

import threading
import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.engine import URL

from darkroom.queue.doorbell import Doorbell, Role, wait_for
from darkroom.storage import postgresql

if TYPE_CHECKING:
    from psycopg import Connection

log = structlog.get_logger()

RETRY_S = 1.0  # from a lost connection to the next try
CLOSE_S = 1.0  # the longest that `close` waits for rings to be sent


class ServerDoorbells:
    """Rings and listens over one connection of its own, in a thread that begins when it is needed.

    A NOTIFY is no part of the transaction that it tells of, because PostgreSQL commits transactions
    with one after the other. Rings that come while one is sent are sent together, so there are
    never more than the connection carries. After a lost connection every bell rings once.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._lock = threading.Lock()  # of all below
        self._thread: threading.Thread | None = None
        self._bells: dict[Doorbell, Role] = {}
        self._to_ring: set[Role] = set()
        self._closing = False
        self._work = Doorbell()  # rings when the thread has something to do

    def ring(self, role: Role) -> None:
        with self._lock:
            self._to_ring.add(role)
        self._wake()

    def listen(self, role: Role) -> Doorbell:
        bell = Doorbell()
        with self._lock:
            self._bells[bell] = role
        self._wake()
        return bell

    def close(self) -> None:
        with self._lock:
            self._closing, thread = True, self._thread
        self._work.ring()
        if thread is not None:
            thread.join(CLOSE_S)
        if thread is None or not thread.is_alive():
            self._work.close()

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="doorbells", daemon=True)
                self._thread.start()
        self._work.ring()

    def _run(self) -> None:
        from psycopg import Error

        is_lost = False
        while True:
            try:
                with postgresql.connect_alone(self._url) as connection:
                    if is_lost:
                        log.info("processes on other hosts can be woken again")
                    is_lost = False
                    self._serve(connection)
                    return
            except Error as error:
                if not is_lost:
                    log.warning("processes on other hosts cannot be woken", reason=str(error))
                is_lost = True
            if self._closing:
                return
            time.sleep(RETRY_S)

    def _serve(self, connection: "Connection") -> None:
        """Ring and listen until this is closed.

        Raises:
            psycopg.Error: the connection is lost.
        """
        connection.add_notify_handler(lambda notify: self._hear(notify.channel))
        listening: set[Doorbell] = set()
        while True:
            with self._lock:
                to_ring, self._to_ring = self._to_ring, set()
                new = {bell: role for bell, role in self._bells.items() if bell not in listening}
                closing = self._closing
            for bell, role in new.items():
                connection.execute(f"LISTEN {_channel(role)}")
                bell.ring()  # for what was rung before this
            listening |= new.keys()
            if to_ring:
                connection.execute("; ".join(f"NOTIFY {_channel(role)}" for role in to_ring))
            if closing:
                return
            wait_for(connection.fileno(), self._work.fileno())
            self._work.wait(0)
            connection.pgconn.consume_input()
            while heard := connection.pgconn.notifies():
                self._hear(heard.relname.decode())

    def _hear(self, channel: str) -> None:
        with self._lock:
            bells = [bell for bell, role in self._bells.items() if _channel(role) == channel]
        for bell in bells:
            bell.ring()


def _channel(role: Role) -> str:
    return f"darkroom_{role}"
