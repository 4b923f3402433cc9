"""How long jobs will take, from how long such jobs have taken.

Jobs in flight share the engine, so two things are kept apart. A job's *share* is the engine's time
that went into it: the shares of all jobs add up to the time on the clock. What the caller waits for
is the *clock*, on which the shares of everybody in flight pass.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count, takewhile

FAINT = 0.1  # who comes again with less certainty than this is not expected


@dataclass(frozen=True)
class Kind:
    """What a speed is true of.

    Attributes:
        model: by name.
        pixels: width × height of an image.
        in_flight: images in flight together, as a power of two: on a GPU a step of four images
            takes hardly longer than one of a single image, so each one's share is smaller.
    """

    model: str
    pixels: int
    in_flight: int


@dataclass(frozen=True)
class Speed:
    """A measurement, in shares.

    Attributes:
        step_seconds: of one denoising step of one image.
        other_seconds: of everything else, an image: preparation, decoding, storing.
    """

    step_seconds: float
    other_seconds: float

    def blended(self, newer: "Speed", weight: float = 0.3) -> "Speed":
        """A moving average: `newer` counts for `weight`."""
        return Speed(
            self.step_seconds + weight * (newer.step_seconds - self.step_seconds),
            self.other_seconds + weight * (newer.other_seconds - self.other_seconds),
        )


@dataclass(frozen=True, slots=True)
class Work:
    """A job that has not ended.

    Attributes:
        client: whose it is.
        model: by name.
        pixels: width × height of an image.
        images: how many.
        step: denoising steps done, over all images.
        steps: in all.
        isolated: whether nothing else may be in flight with it.
    """

    client: str
    model: str
    pixels: int
    images: int
    step: int
    steps: int
    isolated: bool = False

    @property
    def weight(self) -> float:
        """What its part of the engine's time is by: `engine.batching` prefers short jobs so."""
        return self.images / math.sqrt(max(1, self.steps))


@dataclass(slots=True)
class _JobInFlight:
    """A job being worked on in the simulation.

    Attributes:
        index: in the queue; None of one that is only expected.
        work: what it is.
        certainty: that it is there at all, 0 to 1.
        left: the part of its work still to do.
    """

    index: int | None
    work: Work
    certainty: float = 1.0
    left: float = 1.0


class Estimator:
    """Predicts from measured speeds.

    Args:
        speeds: by what they are true of.
        places: jobs that are worked on together.
        per_client: how many of them may be one client's; None is all.
        returning: how many of those whose job ends come again with such a job, 0 to 1.
        due: jobs like those with which somebody comes again now, and how certainly.
    """

    def __init__(
        self,
        speeds: Mapping[Kind, Speed],
        places: int,
        *,
        per_client: int | None = None,
        returning: float = 0.0,
        due: Sequence[tuple[Work, float]] = (),
    ) -> None:
        self._speeds = speeds
        self._models = {kind.model for kind in speeds}
        self._places = places
        self._per_client = places if per_client is None else per_client
        self._returning = returning
        self._due = [(work, certainty) for work, certainty in due if work.model in self._models]
        self._found: dict[tuple[str, int, int], Speed] = {}

    def seconds(self, queue: Sequence[Work]) -> list[float | None]:
        """From now to the end of each job; see `ends`.

        Returns:
            A number a job; None from the first one on whose model was never measured.
        """
        found: list[float | None] = [None] * len(queue)
        for index, end in self.ends(queue):
            found[index] = end
        return found

    def ends(self, queue: Sequence[Work]) -> Iterator[tuple[int, float]]:
        """Which job ends when, by the clock, from now on, the first one first.

        Jobs in flight get parts of the engine's time by their weights. When a job ends, the next
        one that may takes its place and the parts change. Those who lately came again when their
        job had ended are expected to do so, behind all who wait already; nobody else is.

        Args:
            queue: the jobs in flight, then those that wait, in the order of their turns.

        Returns:
            Index into the queue and seconds. Whoever waits behind a job whose model was never
            measured is left out, and so is that job.
        """
        known = list(takewhile(lambda work: work.model in self._models, queue))
        line = _Line(
            [_JobInFlight(index, work) for index, work in enumerate(known)], self._per_client
        )
        for work, certainty in self._due:
            self._expect(line, work, certainty)
        flying: list[_JobInFlight] = []
        now, expected = 0.0, len(known)
        while expected:
            while len(flying) < self._places:
                entering = line.next(bool(flying))
                if entering is None:
                    break
                flying.append(entering)
            images = sum(flight.certainty * flight.work.images for flight in flying)
            weights = sum(flight.certainty * flight.work.weight for flight in flying)
            clocks = [flight.left * self._clock(flight.work, images, weights) for flight in flying]
            passed = min(clocks)
            now += passed
            staying = []
            for flight, seconds in zip(flying, clocks, strict=True):
                if seconds > passed:
                    flight.left *= 1 - passed / seconds
                    staying.append(flight)
                    continue
                line.ended(flight)
                if flight.index is not None:
                    yield flight.index, now
                    expected -= 1
                self._expect(line, flight.work, flight.certainty * self._returning)
            flying = staying

    def _expect(self, line: "_Line", work: Work, certainty: float) -> None:
        """Somebody comes again with such a job."""
        if certainty > FAINT:
            line.append(_JobInFlight(None, replace(work, step=0, isolated=False), certainty))

    def _clock(self, work: Work, images: float, weights: float) -> float:
        """From now to a job's end by the clock, if so many images of such weights stayed."""
        speed = self._speed(work.model, work.pixels, max(1, round(images)))
        steps = max(0, work.steps - work.step)
        share = steps * speed.step_seconds + work.images * speed.other_seconds
        return share * max(1.0, weights / work.weight)

    def _speed(self, model: str, pixels: int, in_flight: int) -> Speed:
        """Of the nearest kind measured, by pixels and then by company; scaled by the pixels."""
        key = (model, pixels, in_flight)
        found = self._found.get(key)
        if found is None:
            nearest = min(
                (measured for measured in self._speeds if measured.model == model),
                key=lambda measured: (
                    abs(math.log(measured.pixels / pixels)),
                    abs(math.log(measured.in_flight / in_flight)),
                ),
            )
            larger, speed = pixels / nearest.pixels, self._speeds[nearest]
            found = Speed(larger * speed.step_seconds, larger * speed.other_seconds)
            self._found[key] = found
        return found


class _Line:
    """Jobs that wait in the simulation, of which the first one goes next whose client may.

    Args:
        flights: in the order of their turns.
        per_client: jobs that one client may have in flight.
    """

    def __init__(self, flights: Sequence[_JobInFlight], per_client: int) -> None:
        self._per_client = per_client
        self._in_flight: Counter[str] = Counter()
        self._isolated = 0  # in flight
        self._numbers = count()
        self._queues: dict[str, deque[tuple[int, _JobInFlight]]] = defaultdict(deque)
        self._heads: list[tuple[int, str]] = []  # the first one's number of each client that may go
        for flight in flights:
            self.append(flight)

    def append(self, flight: _JobInFlight) -> None:
        """One more comes, behind all others."""
        client, number = flight.work.client, next(self._numbers)
        self._queues[client].append((number, flight))
        if len(self._queues[client]) == 1 and self._in_flight[client] < self._per_client:
            heappush(self._heads, (number, client))

    def next(self, busy: bool) -> _JobInFlight | None:
        """Take the next one; None if nobody may go.

        Args:
            busy: whether others are in flight.
        """
        if self._isolated or not self._heads:
            return None
        _, client = self._heads[0]
        queue = self._queues[client]
        flight = queue[0][1]
        if flight.work.isolated and busy:
            return None  # it waits until it is alone, and nobody overtakes it
        heappop(self._heads)
        queue.popleft()
        self._in_flight[client] += 1
        self._isolated += flight.work.isolated
        if queue and self._in_flight[client] < self._per_client:
            heappush(self._heads, (queue[0][0], client))
        return flight

    def ended(self, flight: _JobInFlight) -> None:
        """A job is no longer in flight."""
        client = flight.work.client
        self._isolated -= flight.work.isolated
        if self._in_flight[client] == self._per_client and self._queues[client]:
            heappush(self._heads, (self._queues[client][0][0], client))
        self._in_flight[client] -= 1


def power_of_two(images: float) -> int:
    """The one nearest to a mean number of images, at least 1."""
    return int(2 ** round(math.log2(max(1.0, images))))
