"""Whose turn it is: clients take turns; a client's jobs go by urgency, then by age.

A client's *ticket* is the number of claims, of all clients, at its last turn. The client with the
lowest ticket goes next, and gets a new one above all others. So between two turns of a client with
queued jobs, every other client has at most one turn, however many jobs it queues.

Both the next claim and the positions shown to callers are computed here.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace


@dataclass(frozen=True, slots=True)
class ClientQueue:
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


def in_turn(
    queues: Mapping[str, ClientQueue],
    tickets: Mapping[str, int],
    in_flight: Sequence[str],
    per_client: int,
) -> list[str]:
    """The clients below their limits, in the order of their next turns; arguments as `order`."""
    counts = Counter(in_flight)
    turns = sorted(_turns(queues, tickets))
    return [client for _, _, client in turns if counts[client] < per_client]


def order(
    queues: Mapping[str, ClientQueue],
    tickets: Mapping[str, int],
    in_flight: Sequence[str],
    *,
    places: int,
    per_client: int,
) -> Iterator[str]:
    """The clients in the order of their turns, if jobs in flight end in the order they began.

    A client at its limit of jobs in flight is skipped and keeps its turn.

    Args:
        queues: by client.
        tickets: by client; a client without one goes first.
        in_flight: the client of each job in flight, the oldest first.
        places: jobs in flight together, at least 1.
        per_client: the most of them of one client, at least 1.

    Yields:
        The client of each queued job, the next one first.
    """
    left = {client: queue.jobs for client, queue in queues.items()}
    running, counts = deque(in_flight), Counter(in_flight)
    latest = max(tickets.values(), default=0)
    turns = _turns(queues, tickets)
    heapify(turns)
    skipped: dict[str, tuple[int, int, str]] = {}
    while turns or skipped:
        if not turns or len(running) >= places:
            client = running.popleft()
            counts[client] -= 1
            if client in skipped:
                heappush(turns, skipped.pop(client))
            continue
        client = turns[0][2]
        if counts[client] >= per_client:
            skipped[client] = heappop(turns)
            continue
        running.append(client)
        counts[client] += 1
        left[client] -= 1
        latest += 1
        if left[client]:
            heapreplace(turns, (latest, 0, client))
        else:
            heappop(turns)
        yield client


def _turns(
    queues: Mapping[str, ClientQueue], tickets: Mapping[str, int]
) -> list[tuple[int, int, str]]:
    """The next turn of each client, to be sorted: the oldest job decides between equal tickets."""
    return [(tickets.get(client, 0), queue.oldest, client) for client, queue in queues.items()]
