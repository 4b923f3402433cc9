"""Who is still to be told of a job's end. What is written here outlives every process.

A delivery is written with its job, and is due from the transaction on that ends the job
(`transitions.end`). It is taken by a claim, so that two web processes do not send it at once, and
stays until it was delivered or given up. Whoever dies in between leaves a claim that lapses: the
delivery is sent again then, perhaps for the second time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from darkroom.queue.transitions import view
from darkroom.responses import Job, WebhookState
from darkroom.storage.database import Database
from darkroom.storage.tables import JobRow, WebhookRow

LONGEST_WAIT_S = 6 * 3600.0  # between two attempts


@dataclass(frozen=True)
class Delivery:
    """What is to be told to whom.

    Attributes:
        job: that has ended.
        url: of who is told; holds secrets perhaps.
        origin: of it, which holds none.
        attempt: 1 at first.
    """

    job: Job
    url: str = field(repr=False)
    origin: str
    attempt: int


@dataclass(frozen=True)
class _Claim:
    """What stays the same as long as another process is at one attempt."""

    job_id: str
    sender: str
    attempts: int


class Outbox:
    """The deliveries, as one process sends them. Any thread may ask, one at a time.

    Nothing here is worth a sync: what a power cut takes back is sent twice, never lost.

    Args:
        database: migrated.
        sender: an id that no other process has, or had.
        lease_s: how long another process's claim holds; longer than an attempt can take.
        clock: seconds since the epoch.
        monotonic: seconds on a clock that nobody sets.
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
        self._first_seen: dict[_Claim, float] = {}  # of others, monotonic

    # --- taking ----------------------------------------------------------------------------

    def claim(self, at_once: int, busy: Mapping[str, int]) -> list[Delivery]:
        """Take deliveries that are due, the longest due first at each origin.

        Args:
            at_once: deliveries under way to one origin, so that a slow one delays only itself.
            busy: how many there are already, by origin.
        """
        with self._database.read() as session:  # to look must not take the write lock
            waiting = session.scalars(select(WebhookRow.origin).where(*self._due()).distinct())
            origins = [origin for origin in waiting if busy.get(origin, 0) < at_once]
        if not origins:
            return []
        with self._database.write(durable=False) as session:
            rows: list[WebhookRow] = []
            for origin in origins:
                of_origin = select(WebhookRow).where(*self._due(), WebhookRow.origin == origin)
                room = at_once - busy.get(origin, 0)
                rows += session.scalars(of_origin.order_by(WebhookRow.due_at).limit(room))
            for row in rows:
                row.sender = self._sender
                row.attempts += 1
            session.flush()
            return [self._letter(session, row) for row in rows]

    def _due(self) -> tuple[ColumnElement[bool], ...]:
        """Whether a delivery may be taken now.

        One that is due later than any wait is long was given its time by a clock that was wrong.
        """
        now = self._clock()
        right = or_(WebhookRow.due_at <= now, WebhookRow.due_at > now + 2 * LONGEST_WAIT_S)
        return (WebhookRow.state == WebhookState.PENDING, WebhookRow.sender.is_(None), right)

    def _letter(self, session: Session, row: WebhookRow) -> Delivery:
        job = session.scalar(select(JobRow).where(JobRow.id == row.job_id))
        assert job is not None  # the row refers to it
        assert row.url is not None  # it is forgotten only when there is nothing more to send
        told = view(session, job, self._clock(), None)
        return Delivery(told, row.url, row.origin, row.attempts)

    def next_due_s(self) -> float | None:
        """How long until another delivery falls due; None if none waits for its time."""
        now = self._clock()
        later = select(func.min(WebhookRow.due_at)).where(
            WebhookRow.state == WebhookState.PENDING, WebhookRow.due_at > now
        )
        with self._database.read() as session:
            due_at = session.scalar(later)
        return None if due_at is None else due_at - now

    def recover_lapsed(self) -> int:
        """Free the deliveries of other processes that had time enough for an attempt, and more.

        The time passes on this process's own clock, from when it first saw the claim, so that a
        clock that is set neither takes a delivery from its sender nor leaves one behind.

        Returns:
            How many there were.
        """
        held = select(WebhookRow.job_id, WebhookRow.sender, WebhookRow.attempts).where(
            WebhookRow.state == WebhookState.PENDING,
            WebhookRow.sender.is_not(None),
            WebhookRow.sender != self._sender,
        )
        with self._database.read() as session:
            claims = [
                _Claim(job_id, sender, attempts)
                for job_id, sender, attempts in session.execute(held)
                if sender is not None
            ]
        now = self._monotonic()
        self._first_seen = {claim: self._first_seen.get(claim, now) for claim in claims}
        lapsed = [claim for claim, at in self._first_seen.items() if now - at > self._lease_s]
        if lapsed:
            with self._database.write(durable=False) as session:
                for claim in lapsed:
                    session.execute(
                        update(WebhookRow)
                        .where(
                            WebhookRow.job_id == claim.job_id,
                            WebhookRow.sender == claim.sender,
                            WebhookRow.attempts == claim.attempts,
                        )
                        .values(sender=None)
                    )
        return len(lapsed)

    # --- what came of it -------------------------------------------------------------------

    def delivered(self, delivery: Delivery) -> None:
        """It was taken. Its address is forgotten."""
        self._end(delivery, WebhookState.DELIVERED, None)

    def give_up(self, delivery: Delivery, reason: str) -> None:
        """It will not be sent again. Its address is forgotten.

        Args:
            delivery: that was claimed.
            reason: for people; nothing secret.
        """
        self._end(delivery, WebhookState.FAILED, reason)

    def postpone(self, delivery: Delivery, wait_s: float, reason: str) -> None:
        """Have it sent again.

        Args:
            delivery: that was claimed.
            wait_s: when, from now on.
            reason: for people; nothing secret.
        """
        due_at = self._clock() + min(wait_s, LONGEST_WAIT_S)
        self._write(delivery, due_at=due_at, sender=None, last_error=reason)

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """What was on its way when this process was stopped was no attempt, and is due."""
        for delivery in deliveries:
            self._write(delivery, sender=None, attempts=delivery.attempt - 1)

    def _end(self, delivery: Delivery, state: WebhookState, reason: str | None) -> None:
        self._write(delivery, state=state, url=None, due_at=None, sender=None, last_error=reason)

    def _write(self, delivery: Delivery, **values: object) -> None:
        """Change a delivery, unless another process has taken it over meanwhile."""
        with self._database.write(durable=False) as session:
            session.execute(
                update(WebhookRow)
                .where(
                    WebhookRow.job_id == delivery.job.id,
                    WebhookRow.sender == self._sender,
                )
                .values(**values)
            )
