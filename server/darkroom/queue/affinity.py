"""Model affinity: which job to claim when the next one's model would unload another.

Loading a model takes as long as many jobs. So a job that is next in fair order is *held* for a
while if its model can only be loaded in the place of another one: jobs of models in memory go
before it, and while there are none, the worker waits for one that another client may send.

A job is held for at most `affinity_s`, and at most as long as the model that would be unloaded took
to load; this counts from when the job was next in fair order. Then nothing is claimed before it. So
a model change costs at most twice the time of a load, and affinity delays the claim of a job by at
most `affinity_s` for each model change before it in fair order, its own included. Jobs claimed
meanwhile may still run then; they are no more than are ever in flight.

Waiting for another client's job is only worth it if one came lately: a model that no other client
used for that time is unloaded at once.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from darkroom.engine.base import ResidentModel

MAX_HELD = 1000  # jobs whose time is remembered; there is one a model change


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued job, by its number, that could be claimed next.

    Attributes:
        loras: names of those that it needs.
        isolated: whether it was in flight when a worker died.
    """

    sequence: int
    client: str
    model: str
    loras: tuple[str, ...] = ()
    isolated: bool = False


@dataclass(frozen=True)
class Models:
    """The models of a worker.

    Attributes:
        resident: in memory, the least recently used first.
        fits: whether a model is in memory, or could be loaded without unloading another.
        in_use: those of the jobs in flight.
    """

    resident: Mapping[str, ResidentModel]
    fits: Callable[[str], bool]
    in_use: Collection[str]

    @property
    def arriving(self) -> set[str]:
        """Models that are loaded now, or will be as soon as there is room."""
        return set(self.in_use) - self.resident.keys()

    def has_room_for(self, model: str) -> bool:
        """Whether a job of this model unloads none, and does not wait behind a load.

        One model is loaded at a time. If it needs the place of another, jobs of models in memory
        would only keep that in use.
        """
        arriving = self.arriving
        if arriving:
            beside = all(self.fits(name) for name in arriving)
            return model in arriving or (beside and model in self.resident)
        return model in self.resident or self.fits(model)

    @property
    def next_unloaded(self) -> str | None:
        """The model that goes for another: the least recently used, idle if one is."""
        idle = [name for name in self.resident if name not in self.in_use]
        return next(iter(idle or self.resident), None)


def choose(
    due: Candidate,
    others: Iterable[Candidate],
    models: Models,
    *,
    held_s: float,
    unused_s: float,
    affinity_s: float,
) -> Candidate | None:
    """The job to claim next; None to wait.

    Args:
        due: the next job in fair order.
        others: jobs that may go before it, in fair order.
        models: of the worker.
        held_s: how long the due job has been held.
        unused_s: how long no client but the due job's has used `models.next_unloaded`.
        affinity_s: the longest time to hold a job.
    """
    if models.has_room_for(due.model):
        return due
    if models.arriving:
        return next((job for job in others if models.has_room_for(job.model)), None)
    going = models.next_unloaded
    hold_s = min(affinity_s, models.resident[going].load_seconds) if going else 0.0
    if held_s >= hold_s:
        return due
    # Not those that could be loaded beside: the due job would wait for their loads.
    ready = next((job for job in others if job.model in models.resident), None)
    if ready is not None or going in models.in_use:
        return ready
    return None if unused_s < hold_s else due


@dataclass
class Affinity:
    """Remembers what `choose` needs: who used which model when, and how long jobs are held.

    Attributes:
        affinity_s: see `choose`.
        clock: seconds, monotonic.
    """

    affinity_s: float
    clock: Callable[[], float]
    _used: defaultdict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(dict), init=False
    )
    _first_seen: dict[str, float] = field(default_factory=dict, init=False)
    _held: OrderedDict[int, float] = field(default_factory=OrderedDict, init=False)

    def used(self, model: str, client: str) -> None:
        """A job of this client's uses the model, or has just used it."""
        uses = self._used[model]
        uses.pop(client, None)
        uses[client] = self.clock()
        if len(uses) > 2:  # the latest client but one that is asked about is among the last two
            del uses[next(iter(uses))]

    def next(
        self, due: Candidate, others: Callable[[], Iterable[Candidate]], models: Models
    ) -> Candidate | None:
        """The job to claim next; see `choose`."""
        if models.has_room_for(due.model):
            return due
        now = self.clock()
        chosen = choose(
            due,
            others(),
            models,
            held_s=now - self._held.get(due.sequence, now),
            unused_s=now - self._last_use(models.next_unloaded, due.client),
            affinity_s=self.affinity_s,
        )
        # Kept when it is chosen: another worker may claim it first, or this is asked once more.
        if chosen != due and not models.arriving:
            self._held.setdefault(due.sequence, now)
            if len(self._held) > MAX_HELD:
                self._held.popitem(last=False)
        return chosen

    def unused_s(self, model: str) -> float:
        """How long no client has used a model; of one never used, since this was first asked."""
        now = self.clock()
        first_seen = self._first_seen.setdefault(model, now)
        return now - max(self._used[model].values(), default=first_seen)

    def _last_use(self, model: str | None, but: str) -> float:
        """When a client other than `but` last used a model."""
        uses = self._used.get(model, {}) if model else {}
        return max((at for client, at in uses.items() if client != but), default=float("-inf"))
