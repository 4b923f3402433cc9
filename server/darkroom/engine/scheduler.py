"""Chooses the engine's next call: which network, whose turn it is, and who shares the call."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from darkroom.config import EngineSettings
from darkroom.engine.active_job import ActiveJob, Key
from darkroom.engine.families.base import Sample
from darkroom.engine.model_manager import LoadedModel, ModelManager

PATIENCE = 8  # calls without a sample that double its weight
K = TypeVar("K", bound=Hashable)


class Deficit:
    """Deficit round robin: shares time evenly between keys, by the seconds charged to each.

    The key charged least is next. An image with slow steps gets one step for a second's worth of
    quick steps, and neither starves (Shreedhar and Varghese,
    https://doi.org/10.1145/217391.217453).
    """

    def __init__(self) -> None:
        self._charged: dict[Hashable, float] = {}

    def next(self, keys: Iterable[K]) -> K:
        """The key to run next, of all that wait, the longest waiting first; at least one.

        Other keys are forgotten, so that no credit is saved up. A new key starts at the lowest
        charge.
        """
        waiting = list(dict.fromkeys(keys))
        start = min((self._charged[key] for key in waiting if key in self._charged), default=0.0)
        self._charged = {key: self._charged.get(key, start) for key in waiting}
        return min(waiting, key=lambda key: self._charged[key])

    def charge(self, key: Hashable, seconds: float) -> None:
        if key in self._charged:
            self._charged[key] += seconds


@dataclass(frozen=True)
class Refuse:
    """End a job whose model cannot be loaded."""

    job: ActiveJob
    error: Exception


@dataclass(frozen=True)
class Prepare:
    """Encode the prompts and sources of new jobs of one key."""

    jobs: Sequence[ActiveJob]
    model: LoadedModel

    @property
    def pictures(self) -> int:
        return len(self.jobs)


@dataclass(frozen=True)
class Denoise:
    """One step of samples that share a call."""

    jobs: Sequence[ActiveJob]  # of the samples
    samples: Sequence[Sample]
    model: LoadedModel
    key: Key
    rows: Counter[str]  # by client


@dataclass(frozen=True)
class Decode:
    """The pictures of denoised samples, with their jobs."""

    pairs: Sequence[tuple[ActiveJob, Sample]]
    model: LoadedModel

    @property
    def jobs(self) -> Sequence[ActiveJob]:
        return list(dict.fromkeys(active for active, _ in self.pairs))

    @property
    def pictures(self) -> int:
        return len(self.pairs)


Call = Prepare | Denoise | Decode
Work = Refuse | Call


class Scheduler:
    """The engine's policy. Finished pictures go first, then new jobs, then steps."""

    def __init__(self, models: ModelManager, settings: EngineSettings) -> None:
        self._models = models
        self._settings = settings
        self.fair = FairScheduler()

    def schedule(self, active_jobs: Sequence[ActiveJob]) -> Work | None:
        """What to do next for these jobs, the oldest first; None if all of them wait for a load."""
        return self._decode(active_jobs) or self._prepare(active_jobs) or self._step(active_jobs)

    def charge(self, work: Call, seconds: float) -> None:
        """Charge a call to the clients whose samples were in it, and learn what calls cost."""
        match work:
            case Denoise(key=key, rows=rows):
                self.fair.charge(key, seconds, rows)
                costs = work.model.costs
                skips = (
                    self._settings.deep_cache_interval > 1 or self._settings.first_block_cache > 0
                )
                plain = not skips and all(sample.recorder is None for sample in work.samples)
                if costs is not None and plain:
                    costs.learn(rows.total(), work.samples[0].area, seconds)
            case Decode(pairs=pairs):
                active, sample = pairs[0]
                shares = Counter(active.job.client for active, _ in pairs)
                self.fair.charge(active.key_of(sample), seconds, shares)
            case Prepare():
                pass  # encoding is short, and done once

    def _decode(self, active_jobs: Sequence[ActiveJob]) -> Decode | None:
        first = next((active for active in active_jobs if any(active.undecoded())), None)
        if first is None:
            return None
        model = self._models.resident(first.model)
        key = first.key_of(next(first.undecoded()))
        pairs = [
            (active, sample)
            for active in active_jobs
            for sample in active.undecoded()
            if active.key_of(sample) == key
        ]
        return Decode(pairs[: 1 if first.exact else model.limits.max_coded], model)

    def _prepare(self, active_jobs: Sequence[ActiveJob]) -> Prepare | Refuse | None:
        """The oldest new jobs whose model is loaded, those that are alike together.

        While a model is being loaded, jobs of models in memory go on. But none overtakes a job that
        waits for memory for its model, or for its LoRAs: the jobs in flight would keep theirs for
        ever.
        """
        in_use = {active.model for active in active_jobs if active.prepared}
        new = [active for active in active_jobs if not active.prepared]
        busy = frozenset(in_use)
        crowded = set()  # models whose LoRAs in use leave no memory for others
        for first in new:
            if first.loras and first.model in crowded:
                continue
            try:
                model = self._models.get(first.model, in_use)
            except Exception as error:
                return Refuse(first, error)
            in_use.add(first.model)  # a younger job's model does not take its place
            if model is not None and first.model in busy and not model.family.admits(first.job):
                crowded.add(first.model)
                continue
            if model is not None:
                alike = [active for active in new if active.key == first.key]
                return Prepare(alike[: model.limits.max_coded], model)
            if not self._models.loading:
                return None
        return None

    def _step(self, active_jobs: Sequence[ActiveJob]) -> Denoise | None:
        waiting: dict[Key, dict[ActiveJob, None]] = {}  # ordered sets
        turns: list[tuple[str, Key]] = []
        for active in active_jobs:
            for sample in active.undenoised():
                key = active.key_of(sample)
                waiting.setdefault(key, {})[active] = None
                turns.append((active.job.client, key))
        if not waiting:
            return None
        client, key = self.fair.next(turns)
        model = self._models.resident(key.model)
        samples = self._choose(key, list(waiting[key]), model, client)
        chosen = {id(sample) for sample in samples}
        jobs, rows = [], Counter[str]()
        for active in waiting[key]:
            own = sum(s.row_count for s in active.undenoised() if id(s) in chosen)
            if own:
                jobs.append(active)
                rows[active.job.client] += own
        return Denoise(jobs, samples, model, key, rows)

    def _choose(
        self, key: Key, active_jobs: Sequence[ActiveJob], model: LoadedModel, client: str
    ) -> list[Sample]:
        candidates = [
            Candidate(sample, active.steps, leads=active.job.client == client)
            for active in active_jobs
            for sample in active.undenoised()
            if active.key_of(sample) == key
        ]
        if active_jobs[0].exact or model.costs is None:
            return [candidates[0].sample]
        costs, area = model.costs, candidates[0].sample.area
        limit = self._settings.max_batch_rows
        budget = costs.limit(area) if isinstance(limit, str) else limit
        budget = min(budget, model.limits.rows(area))
        return choose(candidates, lambda rows: costs.seconds(rows, area), budget)


class FairScheduler:
    """Shares time evenly between clients, and each client's time between the keys of its work.

    A client with one image does not wait behind another's twelve, and a client with many sizes
    gets no more time than one with a single size.
    """

    def __init__(self) -> None:
        self._clients = Deficit()
        self._keys: dict[str, Deficit] = {}

    def next(self, waiting: Sequence[tuple[str, K]]) -> tuple[str, K]:
        """The client to serve next and the key of its work to run, of all that waits.

        The longest waiting comes first; at least one waits.
        """
        chosen = self._clients.next(client for client, _ in waiting)
        self._keys = {client: self._keys.get(client, Deficit()) for client, _ in waiting}
        return chosen, self._keys[chosen].next(key for client, key in waiting if client == chosen)

    def charge(self, key: Hashable, seconds: float, parts: Mapping[str, int]) -> None:
        """Charge a call of that key to its clients, by each one's rows or images in it."""
        total = sum(parts.values())
        for client, part in parts.items():
            self._clients.charge(client, seconds * part / total)
            if client in self._keys:
                self._keys[client].charge(key, seconds * part / total)


@dataclass(frozen=True)
class Candidate:
    """A sample that could be in the next call."""

    sample: Sample
    work: int  # steps of its job, over all its images
    leads: bool = True  # it belongs to the client that is served next

    @property
    def weight(self) -> float:
        """The value of one step of this sample.

        1/√work prefers short jobs without ignoring long ones; skipped calls raise the weight, so
        that every sample is served in the end.
        """
        return (1 + self.sample.skipped / PATIENCE) / math.sqrt(self.work)


def choose(
    candidates: Sequence[Candidate], seconds: Callable[[int], float], max_rows: int
) -> list[Sample]:
    """The samples of the next call, best first: those with the highest weight per second.

    Samples of the client that is served next come first; others fill the rest. One more sample
    makes a call longer for all in it, but by less than a call of its own. Many similar jobs are
    therefore batched up to the knee, and a short job among long ones takes about as long as when
    it has the engine to itself. Increments `skipped` of the samples left out.

    Args:
        candidates: of one key; at least one.
        seconds: the duration of a call of that many rows.
        max_rows: of one call; the first sample may have more.
    """
    waiting = sorted(
        candidates, key=lambda c: (not c.leads, -c.weight / c.sample.row_count, c.sample.index)
    )
    rows, weight, best, best_rate = 0, 0.0, 1, 0.0
    for count, candidate in enumerate(waiting, 1):
        rows += candidate.sample.row_count
        if count > 1 and rows > max_rows:
            break
        weight += candidate.weight
        rate = weight / seconds(rows)
        if rate >= best_rate:
            best, best_rate = count, rate
    for candidate in waiting[best:]:
        candidate.sample.skipped += 1
    return [candidate.sample for candidate in waiting[:best]]
