"""Whose turn it is: clients take turns; a client's jobs go by urgency, then by age.

A client's *ticket* is the number of claims, of all clients, at its last turn. The client with the
lowest ticket goes next, and gets a new one above all others. So between two turns of a client with
queued jobs, every other client has at most one turn, however many jobs it queues.

Both the next claim and the positions shown to callers are computed here.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import repeat


@dataclass(frozen=True, slots=True)
class Waiting:
    """The queued jobs of one client: how many, and the number of the oldest."""

    jobs: int
    oldest: int


def joining(ticket: int | None, latest: int) -> int:
    """The ticket of a client that queues a job and had none queued.

    It goes before the client served last and behind all that waited longer: absence earns no
    credit, and new clients cannot delay those that wait.

    Args:
        ticket: its earlier ticket, if any.
        latest: the highest of all tickets.
    """
    return max(ticket or 0, latest - 1)


class Rotation:
    """Hands out turns.

    Args:
        waiting: by client.
        tickets: by client; a client without one goes first.
        in_flight: the client of each job in flight.
        per_client: the most jobs in flight of one client, at least 1.
    """

    def __init__(
        self,
        waiting: Mapping[str, Waiting],
        tickets: Mapping[str, int],
        in_flight: Iterable[str],
        per_client: int,
    ) -> None:
        self._left = {client: queued.jobs for client, queued in waiting.items()}
        self._in_flight = Counter(in_flight)
        self._per_client = per_client
        self._latest = max(tickets.values(), default=0)
        # The oldest job decides between equal tickets.
        self._turns = [
            (tickets.get(client, 0), queued.oldest, client) for client, queued in waiting.items()
        ]
        heapify(self._turns)
        self._held: dict[str, tuple[int, int, str]] = {}  # turns of clients at their limit

    def next(self) -> str | None:
        """Take the turn of the next client; None if no client with queued jobs may go.

        A client at its limit of jobs in flight is skipped and keeps its turn.
        """
        while self._turns:
            turn = heappop(self._turns)
            client = turn[2]
            if self._in_flight[client] >= self._per_client:
                self._held[client] = turn
                continue
            self._in_flight[client] += 1
            self._latest += 1
            self._left[client] -= 1
            if self._left[client]:
                heappush(self._turns, (self._latest, 0, client))
            return client
        return None

    def ended(self, client: str) -> None:
        """Record that a job of this client is no longer in flight."""
        self._in_flight[client] -= 1
        if client in self._held:
            heappush(self._turns, self._held.pop(client))


def order(
    waiting: Mapping[str, Waiting],
    tickets: Mapping[str, int],
    in_flight: Sequence[str],
    *,
    places: int,
    per_client: int,
) -> Iterator[str]:
    """The clients in the order of their turns, if jobs in flight end in the order they began.

    Args:
        waiting: by client.
        tickets: by client.
        in_flight: the client of each job in flight, the oldest first.
        places: jobs in flight together, at least 1.
        per_client: the most of them of one client, at least 1.

    Yields:
        The client of each queued job, the next one first.
    """
    if len(waiting) == 1:  # no other client can go in between
        ((only, queued),) = waiting.items()
        yield from repeat(only, queued.jobs)
        return
    rotation = Rotation(waiting, tickets, in_flight, per_client)
    running = deque(in_flight)
    while True:
        client = rotation.next() if len(running) < places else None
        if client is not None:
            running.append(client)
            yield client
        elif running:
            rotation.ended(running.popleft())
        else:
            return
