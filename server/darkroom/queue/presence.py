"""The workers that there are, and telling one to claim nothing new."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from json import loads

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from darkroom.catalog import published
from darkroom.catalog.published import Published
from darkroom.errors import DarkroomError
from darkroom.queue.peers import in_flight
from darkroom.responses import WorkerInfo
from darkroom.storage.database import Database
from darkroom.storage.records import timestamp
from darkroom.storage.tables import WorkerRow

READ_EVERY_S = 1.0  # what workers on other machines have
SHOWN_S = 86_400.0  # for which a worker that is gone is still listed


class UnknownWorkerError(DarkroomError):
    """There is no worker of that name."""


@dataclass(eq=False)
class Workers:
    """All workers of a queue. Methods raise DatabaseUnavailableError. From any thread.

    Attributes:
        clock: seconds since the epoch.
    """

    database: Database
    clock: Callable[[], float] = time.time

    def all(self) -> list[WorkerInfo]:
        """Those that live or lived a day ago, and those that are told to drain, by name.

        `models` are those that a worker publishes; it publishes none if the database is in its
        data folder.
        """
        with self.database.read() as session:
            return _infos(session, self.clock())

    def drain(self, name: str, draining: bool) -> WorkerInfo:
        """Have a worker claim nothing new, or have it claim jobs again.

        Raises:
            UnknownWorkerError: there is none of the name.
        """
        with self.database.write() as session:
            session.execute(update(WorkerRow).where(WorkerRow.id == name).values(draining=draining))
            found = {each.name: each for each in _infos(session, self.clock())}
        if name not in found:
            there = ", ".join(found) or "none"
            raise UnknownWorkerError(f"there is no worker {name!r}; there is {there}")
        return found[name]


def _infos(session: Session, now: float) -> list[WorkerInfo]:
    jobs = in_flight(session)
    rows = session.scalars(select(WorkerRow).order_by(WorkerRow.id)).all()
    return [
        WorkerInfo(
            name=row.id,
            alive=row.lease_until > now,
            ready=row.ready and row.lease_until > now,
            draining=row.draining,
            device=row.device,
            device_name=row.device_name,
            torch=row.torch,
            free_bytes=row.free_bytes,
            models=tuple(loads(row.catalog).get("models", ())),
            resident=tuple(loads(row.memory).get("resident", ())),
            jobs_in_flight=jobs.get(row.lease, 0),
            max_in_flight=row.max_in_flight,
            seen_at=timestamp(row.seen_at),
        )
        for row in rows
        if row.draining or row.seen_at > now - SHOWN_S
    ]


@dataclass(frozen=True)
class Fleet:
    """What live workers have.

    Attributes:
        here: names of those whose folders this process can read itself.
        elsewhere: what each of the others has, by its name.
    """

    here: tuple[str, ...] = ()
    elsewhere: dict[str, Published] = field(default_factory=dict)

    @cached_property
    def there(self) -> Published:
        """What the others have together; of two things with one name that of the first worker."""
        every = [*reversed(self.elsewhere.values())]
        return Published(
            {name: entry for has in every for name, entry in has.models.items()},
            {name: entry for has in every for name, entry in has.loras.items()},
            {name: entry for has in every for name, entry in has.embeddings.items()},
            {name: entry for has in every for name, entry in has.upscalers.items()},
        )

    def lacks(self, model: str) -> bool:
        """Whether workers run, but none that has a model of this process's folders."""
        return not self.here and bool(self.elsewhere) and model not in self.there.models

    def having(self, model: str, *, is_here: bool) -> tuple[str, ...]:
        """The workers that have a model or not, which may be in the folders of this process."""
        there = [name for name, has in self.elsewhere.items() if model in has.models]
        return tuple(sorted([*self.here, *there] if is_here else there))


@dataclass(eq=False)
class Fleets:
    """Reads what live workers have, at most once in READ_EVERY_S. From any thread.

    Attributes:
        folder: the identity of this process's data folder.
    """

    database: Database
    folder: str
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _read_at: float = field(default=float("-inf"), init=False)
    _fleet: Fleet = field(default_factory=Fleet, init=False)
    _known: dict[str, Published] = field(default_factory=dict, init=False)  # by digest

    def read(self) -> Fleet:
        """What they have now, or had a moment ago."""
        now = self.monotonic()
        if now - self._read_at >= READ_EVERY_S:
            self._fleet = self._read()
            self._read_at = now
        return self._fleet

    def _read(self) -> Fleet:
        alive = WorkerRow.lease_until > self.clock()
        columns = (WorkerRow.id, WorkerRow.folder, WorkerRow.catalog_digest)
        with self.database.read() as session:
            rows = session.execute(select(*columns).where(alive).order_by(WorkerRow.id)).all()
            others = {row.id: row.catalog_digest for row in rows if row.folder != self.folder}
            known = {digest: self._known[digest] for digest in others.values() & self._known.keys()}
            new = set(others.values()) - known.keys()
            texts = select(WorkerRow.catalog_digest, WorkerRow.catalog)
            for digest, text in session.execute(texts.where(WorkerRow.catalog_digest.in_(new))):
                known.setdefault(digest, published.read(text))
        self._known = known
        here = tuple(row.id for row in rows if row.folder == self.folder)
        elsewhere = {name: known[digest] for name, digest in others.items() if digest in known}
        return Fleet(here, elsewhere)
