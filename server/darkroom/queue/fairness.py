"""Whose turn it is: clients in rotation, and within one the most urgent job, then the oldest.

A client's *ticket* says when it was last served, counted in claims of everybody. The lowest goes
next, and gets a new one above all others. So between two turns of a client that waits, every other
has one turn at most, however many jobs it queues and whenever it comes.

Whoever is claimed next and every position that is shown come from here.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A queued job.

    Attributes:
        sequence: orders jobs by acceptance.
        client: whose it is.
        urgency: 0 to 7, the most urgent first.
    """

    sequence: int
    client: str
    urgency: int


def joining(ticket: int | None, latest: int) -> int:
    """The ticket of a client that had nothing queued and comes with a job.

    It goes before the one that was served last and behind all who waited longer: to have stayed
    away gives no credit, and newcomers cannot keep those who wait from their turns.

    Args:
        ticket: that it had, if any.
        latest: the highest of all tickets.
    """
    return max(ticket or 0, latest - 1)


class Rotation:
    """Hands out turns.

    Args:
        waiting: jobs, in any order.
        tickets: by client; one that has none goes first.
        in_flight: the client of each job in flight.
        per_client: jobs that one client may have in flight, at least 1.
    """

    def __init__(
        self,
        waiting: Iterable[QueuedJob],
        tickets: Mapping[str, int],
        in_flight: Iterable[str],
        per_client: int,
    ) -> None:
        queues: dict[str, list[QueuedJob]] = defaultdict(list)
        for job in waiting:
            queues[job.client].append(job)
        for queue in queues.values():
            queue.sort(key=lambda job: (job.urgency, job.sequence), reverse=True)  # first is last
        self._queues = queues
        self._in_flight = Counter(in_flight)
        self._per_client = per_client
        self._latest = max(tickets.values(), default=0)
        # Ticket, the oldest job's number so that equals are told apart, client.
        self._turns = [
            (tickets.get(client, 0), min(job.sequence for job in queue), client)
            for client, queue in queues.items()
        ]
        heapify(self._turns)
        self._held: dict[str, tuple[int, int, str]] = {}  # turns of clients with no place left

    def next(self) -> QueuedJob | None:
        """Take the job whose turn it is; None if all that wait have to wait for their own.

        A client with as many jobs in flight as it may have is passed over and keeps its turn.
        """
        while self._turns:
            turn = heappop(self._turns)
            client = turn[2]
            if self._in_flight[client] >= self._per_client:
                self._held[client] = turn
                continue
            queue = self._queues[client]
            job = queue.pop()
            self._in_flight[client] += 1
            self._latest += 1
            if queue:
                heappush(self._turns, (self._latest, queue[-1].sequence, client))
            return job
        return None

    def ended(self, client: str) -> None:
        """A job of this client is no longer in flight."""
        self._in_flight[client] -= 1
        turn = self._held.get(client)
        if turn is not None and self._in_flight[client] < self._per_client:
            del self._held[client]
            heappush(self._turns, turn)


def order(
    waiting: Iterable[QueuedJob],
    tickets: Mapping[str, int],
    in_flight: Sequence[str],
    *,
    places: int,
    per_client: int,
) -> Iterator[QueuedJob]:
    """Jobs in the order of their turns, if those in flight end in the order in which they began.

    Args:
        waiting: jobs, in any order.
        tickets: by client.
        in_flight: the client of each job in flight, the oldest first.
        places: jobs in flight together, at least 1.
        per_client: how many of them one client may have, at least 1.
    """
    rotation = Rotation(waiting, tickets, in_flight, per_client)
    flying = deque(in_flight)
    while True:
        job = rotation.next() if len(flying) < places else None
        if job is not None:
            flying.append(job.client)
            yield job
        elif flying:
            rotation.ended(flying.popleft())
        else:
            return
