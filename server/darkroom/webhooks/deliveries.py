"""Deliveries in the database: which webhooks are due, claimed, delivered or given up.

A delivery is written with its job and is due from the transaction that ends the job on
(`transitions.end`). A claim keeps two web processes from sending it at the same time. It stays
until it was delivered or given up. The claim of a process that dies lapses: the delivery is sent
again then, perhaps for the second time.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from darkroom.responses import Job, WebhookState
from darkroom.storage.database import Database
from darkroom.storage.records import Estimate, job_of
from darkroom.storage.tables import ImageRow, JobRow, WebhookRow

LONGEST_WAIT_S = 6 * 3600.0  # between two attempts


@dataclass(frozen=True)
class Delivery:
    """One message to one receiver.

    Attributes:
        job: ended.
        url: of the receiver; may contain secrets.
        origin: scheme, host and port of the url, without secrets.
        attempt: 1 at first.
    """

    job: Job
    url: str = field(repr=False)
    origin: str
    attempt: int

    def body(self) -> bytes:
        """The JSON message: type, time, and the job as in `GET /jobs/{id}`, without its webhook.

        The webhook's state would change with every attempt. Links stay relative: only the caller
        knows a name of this server that works in their network.
        """
        ended = self.job.finished_at or self.job.created_at
        message = {
            "type": f"job.{self.job.status}",
            "timestamp": ended.isoformat().replace("+00:00", "Z"),
            "data": self.job.model_dump(mode="json", exclude={"webhook"}),
        }
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


class Outbox:
    """Claims deliveries for one process and records their results. Thread-safe.

    Nothing here is synced to disk: after a power cut a message may be sent twice, never lost.

    Args:
        database: migrated.
        sender: an id that no other process has, or had.
        lease_s: how long another process's claim holds; longer than an attempt can take.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that is never set.
    """

    def __init__(
        self,
        database: Database,
        sender: str,
        lease_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._sender = sender
        self._lease_s = lease_s
        self._clock = clock
        self._monotonic = monotonic
        # Monotonic times of others' claims: job, sender, and attempts, which grow with each claim.
        self._first_seen: dict[tuple[str, str | None, int], float] = {}

    def claim(self, at_once: int, busy: Mapping[str, int]) -> list[Delivery]:
        """Claim deliveries that are due, the longest due first at each origin.

        Args:
            at_once: the most deliveries under way to one origin, so that a slow one delays only
                itself.
            busy: how many are under way already, by origin.
        """
        place = func.row_number().over(
            partition_by=WebhookRow.origin, order_by=(WebhookRow.due_at, WebhookRow.job_id)
        )
        ranked = select(WebhookRow.job_id, WebhookRow.origin, place.label("place"))
        ranked_due = ranked.where(*self._due()).subquery()
        first = select(ranked_due).where(ranked_due.c.place <= at_once)
        with self._database.read() as session:  # to look must not take the write lock
            chosen = [
                job_id
                for job_id, origin, place in session.execute(first)
                if place <= at_once - busy.get(origin, 0)
            ]
        if not chosen:
            return []
        with self._database.write(durable=False) as session:
            mine = select(WebhookRow).where(*self._due(), WebhookRow.job_id.in_(chosen))
            rows = session.scalars(mine.order_by(WebhookRow.due_at)).all()
            for row in rows:
                row.sender = self._sender
                row.attempts += 1
            session.flush()
            return [self._delivery(session, row) for row in rows]

    def _due(self) -> tuple[ColumnElement[bool], ...]:
        """Whether a delivery may be claimed now.

        A time further away than the longest wait was set by a wrong clock, and counts as due.
        """
        now = self._clock()
        due = or_(WebhookRow.due_at <= now, WebhookRow.due_at > now + 2 * LONGEST_WAIT_S)
        return (WebhookRow.state == WebhookState.PENDING, WebhookRow.sender.is_(None), due)

    def _delivery(self, session: Session, row: WebhookRow) -> Delivery:
        job = session.scalars(select(JobRow).where(JobRow.id == row.job_id)).one()
        assert row.url is not None  # deleted only when there is nothing more to send
        images = session.scalars(select(ImageRow).where(ImageRow.job_id == job.id)).all()
        return Delivery(job_of(job, images, Estimate(), row), row.url, row.origin, row.attempts)

    def recover_lapsed(self) -> int:
        """Free deliveries that other processes have claimed for longer than the lease.

        The time is measured on this process's own clock from when it first saw the claim, so that
        a clock that is set neither takes a delivery from its sender nor leaves one behind.

        Returns:
            How many were freed.
        """
        held = select(WebhookRow.job_id, WebhookRow.sender, WebhookRow.attempts).where(
            WebhookRow.state == WebhookState.PENDING, WebhookRow.sender != self._sender
        )
        with self._database.read() as session:
            found = session.execute(held)
            claims = [(job_id, sender, attempts) for job_id, sender, attempts in found]
        now = self._monotonic()
        self._first_seen = {claim: self._first_seen.get(claim, now) for claim in claims}
        lapsed = [claim for claim, at in self._first_seen.items() if now - at > self._lease_s]
        if lapsed:
            with self._database.write(durable=False) as session:
                for job_id, sender, attempts in lapsed:
                    unchanged = (WebhookRow.sender == sender, WebhookRow.attempts == attempts)
                    session.execute(
                        update(WebhookRow)
                        .where(WebhookRow.job_id == job_id, *unchanged)
                        .values(sender=None)
                    )
        return len(lapsed)

    def recover_unknown(self, known: Collection[str]) -> int:
        """Free deliveries that this process has claimed and does not know of; how many.

        As when the connection broke while the claim was committed.

        Args:
            known: the jobs of those that are under way.
        """
        claimed = select(WebhookRow.job_id).where(
            WebhookRow.state == WebhookState.PENDING, WebhookRow.sender == self._sender
        )
        with self._database.read() as session:
            unknown = set(session.scalars(claimed)) - set(known)
        if unknown:
            with self._database.write(durable=False) as session:
                mine = (WebhookRow.sender == self._sender, WebhookRow.job_id.in_(unknown))
                session.execute(update(WebhookRow).where(*mine).values(sender=None))
        return len(unknown)

    def delivered(self, delivery: Delivery) -> None:
        """Record that the receiver has it. Its address is deleted."""
        self._end(delivery, WebhookState.DELIVERED, None)

    def give_up(self, delivery: Delivery, reason: str) -> None:
        """Record that it is not sent again, and why; nothing secret. Its address is deleted."""
        self._end(delivery, WebhookState.FAILED, reason)

    def postpone(self, delivery: Delivery, wait_s: float, reason: str) -> None:
        """Schedule another attempt in `wait_s`, and record why; nothing secret."""
        due_at = self._clock() + min(wait_s, LONGEST_WAIT_S)
        self._write(delivery, due_at=due_at, sender=None, last_error=reason)

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Make deliveries that a stop interrupted due again. The attempt does not count."""
        for delivery in deliveries:
            self._write(delivery, sender=None, attempts=delivery.attempt - 1)

    def _end(self, delivery: Delivery, state: WebhookState, reason: str | None) -> None:
        self._write(delivery, state=state, url=None, due_at=None, sender=None, last_error=reason)

    def _write(self, delivery: Delivery, **values: object) -> None:
        """Change a delivery, unless another process has claimed it meanwhile."""
        mine = (WebhookRow.job_id == delivery.job.id, WebhookRow.sender == self._sender)
        with self._database.write(durable=False) as session:
            session.execute(update(WebhookRow).where(*mine).values(**values))
