"""The loop: admit, prepare, step, preview, decode, emit."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import structlog
import torch

from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import EngineSettings, Settings
from darkroom.engine import batching, failures
from darkroom.engine.active_job import Flight
from darkroom.engine.base import (
    Broken,
    Developed,
    EngineEvent,
    EngineJob,
    Finished,
    Meter,
    NoMeter,
    Noted,
    Previewed,
    Started,
    Stepped,
)
from darkroom.engine.batching import Candidate
from darkroom.engine.fairness import Rota
from darkroom.engine.models import Models, SteppedModel, WholeModel
from darkroom.engine.sample import Key, Sample

log = structlog.get_logger()

PREVIEW_SHARE = 0.01  # of the engine's time that previews after the first of a job may take


class DiffusersEngine:
    """An `Engine` over diffusers components, one denoising step at a time.

    A tick is one call of one network: the VAE decodes what is denoised, or newcomers are
    prepared, or else the UNet takes all samples that can share its call one step further.

    Args:
        catalog: where models lie.
        adapters: where LoRAs and embeddings lie.
        upscalers: where upscalers lie.
        settings: device, dtype, previews, limits.
        clock: seconds, monotonic.
        meter: told what calls took.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        adapters: AdapterCatalog,
        upscalers: UpscalerCatalog,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
    ) -> None:
        self._models = Models(catalog, adapters, upscalers, settings, clock)
        self._settings = settings
        self._clock = clock
        self._meter = meter or NoMeter()
        self._flights: dict[str, Flight] = {}  # oldest first
        self._rota = Rota()
        self._busy_s = 0.0
        self._previewing_s = 0.0

    @property
    def device(self) -> str:
        return str(self._models.device)

    def gpu_bytes(self) -> int:
        """Memory that this process has taken on the GPU; 0 without one. From any thread."""
        return torch.cuda.memory_reserved() if self._models.device.type == "cuda" else 0

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Load the default model, which also measures and warms it."""
        self._models.get(None)

    def submit(self, job: EngineJob) -> None:
        self._flights[job.id] = Flight(job)

    def cancel(self, job_id: str) -> None:
        flight = self._flights.pop(job_id, None)
        if flight is not None and flight.whole is not None:
            flight.whole.close()

    def in_flight(self) -> int:
        return len(self._flights)

    @torch.inference_mode()
    def tick(self) -> list[EngineEvent]:
        began = self._clock()
        for work in (self._decode, self._prepare, self._denoise):
            events = work()
            if events is not None:
                self._busy_s += self._clock() - began
                return events
        return []

    # --- prepare ---------------------------------------------------------------------------

    def _prepare(self) -> list[EngineEvent] | None:
        """Set the oldest newcomers of one model up; None if there are none, or no room for it.

        Nobody overtakes a job that waits for room for its model: those in flight would keep
        theirs in memory for ever.
        """
        first = next((f for f in self._flights.values() if not f.prepared), None)
        if first is None:
            return None
        in_use = {flight.model for flight in self._flights.values() if flight.prepared}
        try:
            model = self._models.get(first.model, in_use)
        except (UnknownModelError, OSError, torch.OutOfMemoryError) as error:
            return [self._break(first, error)]
        if model is None:
            return None
        if isinstance(model, WholeModel):
            return self._prepare_whole(first, model)
        if first.job.request.loras and self._settings.fuse_qkv:
            # Their layers would stand in front of projections that are no longer called.
            return [self._break(first, ValueError("engine.fuse_qkv is on, which excludes LoRAs"))]
        flights = self._newcomers_like(first, model.room.max_coded)
        try:
            model.adapters.activate(first.job.request.loras)
            samples = model.family.prepare([flight.job for flight in flights])
        except Exception as error:
            return self._failed(flights, model, error, pictures=len(flights))
        for flight in flights:
            flight.samples = samples[flight.job.id]
            flight.shape = tuple(flight.samples[0].latents.shape[1:])
        return [Started(flight.job.id, flight.steps) for flight in flights]

    def _prepare_whole(self, flight: Flight, model: WholeModel) -> list[EngineEvent]:
        try:
            flight.whole = model.family.start(flight.job)
        except ValueError as error:
            return [self._break(flight, error)]
        return [Started(flight.job.id, flight.whole.steps)]

    def _newcomers_like(self, first: Flight, limit: int) -> list[Flight]:
        """Those that can be prepared in one go."""
        if first.key.alone:
            return [first]
        waiting = (flight for flight in self._flights.values() if not flight.prepared)
        return [flight for flight in waiting if flight.key == first.key][:limit]

    # --- denoise ---------------------------------------------------------------------------

    def _denoise(self) -> list[EngineEvent] | None:
        """One UNet call, and each of its samples' own scheduler step; None if none waits."""
        waiting = self._undenoised()
        if not waiting:
            return None
        client, key = self._rota.next(
            [(flight.job.client, key) for key, flights in waiting.items() for flight in flights]
        )
        model = self._models.resident(key.model)
        if isinstance(model, WholeModel):
            return self._resume(waiting[key][0])
        chosen = self._choose(key, waiting[key], model, client)
        return self._step(waiting[key], model, chosen)

    def _undenoised(self) -> dict[Key, list[Flight]]:
        """Who waits for a step, by whom they may share it with."""
        waiting: dict[Key, list[Flight]] = defaultdict(list)
        busy: set[str] = set()  # those that do one job at a time
        for flight in self._flights.values():
            if flight.undenoised():
                waiting[flight.key].append(flight)
            elif flight.whole is not None and flight.model not in busy:
                if flight.whole.exclusive:
                    busy.add(flight.model)
                waiting[flight.key].append(flight)
        return waiting

    def _resume(self, flight: Flight) -> list[EngineEvent]:
        """One step of a pipeline that runs whole, or one tile of a picture made larger."""
        job, whole = flight.job, flight.whole
        assert whole is not None
        began = self._clock()
        try:
            picture = whole.resume()
        except Exception as error:
            return [self._break(flight, error)]
        self._rota.charge(flight.key, self._clock() - began, {job.client: 1})
        events: list[EngineEvent] = [Stepped(job.id, whole.step, whole.steps)]
        if picture is not None:
            index = whole.index - 1
            events.append(Developed(job.id, index, job.request.seed_of(index), picture))
            if whole.index == job.request.num_images:
                events.append(Finished(job.id))
                self.cancel(job.id)
        return events

    def _step(
        self, waiting: Sequence[Flight], model: SteppedModel, chosen: Sequence[Sample]
    ) -> list[EngineEvent]:
        flights = [f for f in waiting if any(s in chosen for s in f.samples)]
        rows: Counter[str] = Counter()  # by client
        for flight in flights:
            rows[flight.job.client] += sum(len(s.rows) for s in flight.samples if s in chosen)
        began = self._clock()
        try:
            model.adapters.activate(flights[0].job.request.loras)
            failed = model.family.denoiser.step(chosen, model.room.max_rows)
        except Exception as error:
            return self._failed(flights, model, error, rows=rows.total())
        seconds = self._clock() - began
        self._meter.denoised(rows.total(), seconds)
        self._rota.charge(flights[0].key, seconds, rows)
        events: list[EngineEvent] = []
        for flight in sorted(flights, key=lambda flight: flight.previewed_at):
            failure = next((error for sample, error in failed if sample in flight.samples), None)
            if failure is not None:
                events.append(self._break(flight, failure))
            else:
                events.append(Stepped(flight.job.id, flight.step, flight.steps))
                events += self._preview(flight, model)
        return events

    def _choose(
        self, key: Key, flights: Sequence[Flight], model: SteppedModel, client: str
    ) -> list[Sample]:
        candidates = [
            Candidate(sample, flight.steps, leads=flight.job.client == client)
            for flight in flights
            for sample in flight.undenoised()
        ]
        area = key.shape[-2] * key.shape[-1]
        if flights[0].job.request.exact:
            return [candidates[0].sample]
        budget = self._row_budget(model, area)
        return batching.choose(candidates, lambda rows: model.costs.seconds(rows, area), budget)

    def _row_budget(self, model: SteppedModel, area: int) -> int:
        rows = self._settings.max_batch_rows
        return model.costs.knee(area) if isinstance(rows, str) else rows

    def _preview(self, flight: Flight, model: SteppedModel) -> list[EngineEvent]:
        """A preview if one is due; after a job's first, if previews have time of theirs left."""
        now = self._clock()
        due = now - flight.previewed_at >= self._settings.preview_every_s
        again = flight.previewed_at != float("-inf")
        if again and self._previewing_s > PREVIEW_SHARE * self._busy_s:
            return []
        latents = flight.samples[0].predicted_latents() if due else None
        if latents is None:
            return []
        flight.previewed_at = now
        webp = model.preview.render(latents)
        self._previewing_s += self._clock() - now
        return [Previewed(flight.job.id, webp)]

    # --- decode ----------------------------------------------------------------------------

    def _decode(self) -> list[EngineEvent] | None:
        """One VAE call for images that are denoised; None if there are none."""
        first = next((f for f in self._flights.values() if any(f.undeveloped())), None)
        if first is None:
            return None
        model = self._models.resident(first.model)
        assert isinstance(model, SteppedModel)
        count = 1 if first.job.request.exact else model.room.max_coded
        pairs = [
            (flight, sample)
            for flight in self._flights.values()
            if flight.key == first.key
            for sample in flight.undeveloped()
        ][:count]
        began = self._clock()
        try:
            pictures = model.family.decode([sample for _, sample in pairs])
        except Exception as error:
            flights = list({flight.job.id: flight for flight, _ in pairs}.values())
            return self._failed(flights, model, error, pictures=len(pairs))
        seconds = self._clock() - began
        self._meter.decoded(len(pairs), seconds)
        clients = Counter(flight.job.client for flight, _ in pairs)
        self._rota.charge(first.key, seconds, clients)
        events: list[EngineEvent] = []
        for (flight, sample), picture in zip(pairs, pictures, strict=True):
            flight.developed.add(sample.index)
            events.append(Developed(flight.job.id, sample.index, sample.seed, picture))
            if len(flight.developed) == len(flight.samples):
                events.append(Finished(flight.job.id))
                self.cancel(flight.job.id)
        return events

    # --- when it goes wrong ----------------------------------------------------------------

    def _failed(
        self,
        flights: Sequence[Flight],
        model: SteppedModel,
        error: Exception,
        *,
        rows: int = 0,
        pictures: int = 0,
    ) -> list[EngineEvent]:
        """A call failed. Do with less memory, or find out whose fault it is, or give the job up.

        Args:
            flights: whose call it was.
            model: whose call it was.
            error: what it raised.
            rows: of a UNet call.
            pictures: of a VAE call.
        """
        if failures.is_out_of_memory(error):
            note = self._shrink(flights, model, rows, pictures)
            if note is not None:
                log.warning(note, model=model.name)
                return [Noted(flight.job.id, note) for flight in flights]
        elif isinstance(error, torch.AcceleratorError):
            raise error  # the GPU's context is lost: only a new process can go on
        elif len(flights) > 1:
            for flight in flights:
                flight.apart = True
            return []
        return [self._break(flight, error) for flight in flights]

    def _shrink(
        self, flights: Sequence[Flight], model: SteppedModel, rows: int, pictures: int
    ) -> str | None:
        if self._models.device.type == "cuda":
            torch.cuda.empty_cache()
        if rows:
            note = model.room.shrink_denoising(rows)
        else:
            requests = [flight.job.request for flight in flights]
            side = max(max(request.width, request.height) for request in requests)
            note = model.room.shrink_coding(pictures, side)
        model.apply_room()
        return note

    def _break(self, flight: Flight, error: Exception) -> Broken:
        kind, detail = failures.describe(error)
        log.error("job failed", job_id=flight.job.id, kind=kind, exc_info=error)
        self.cancel(flight.job.id)
        return Broken(flight.job.id, kind, detail)


def from_settings(
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    meter: Meter | None = None,
) -> DiffusersEngine:
    """The engine over what lies in the data folder."""
    return DiffusersEngine(
        ModelCatalog(settings.models_dir, settings.models.default),
        AdapterCatalog(settings.loras_dir, settings.embeddings_dir),
        UpscalerCatalog(settings.upscalers_dir),
        settings.engine,
        clock,
        meter,
    )
