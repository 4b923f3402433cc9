"""The engine's loop: prepare, denoise, preview, decode, and report events."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog
import torch

from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import EngineSettings, Settings
from darkroom.engine import memory, scheduler
from darkroom.engine.active_job import ActiveJob
from darkroom.engine.base import (
    EngineEvent,
    EngineJob,
    Failed,
    Finished,
    ImageReady,
    JobWarning,
    Meter,
    Previewed,
    ResidentModel,
    Started,
    Stepped,
)
from darkroom.engine.models import Models, SteppedModel, UnbatchedModel
from darkroom.engine.sample import Key, Sample
from darkroom.engine.scheduler import Candidate, FairScheduler
from darkroom.requests import Txt2Img

log = structlog.get_logger()

PREVIEW_SHARE = 0.01  # of the engine's time that previews after the first of a job may take


class DiffusersEngine:
    """An `Engine` over diffusers components, one denoising step at a time.

    A tick is one call of one network: the VAE decodes denoised samples, or new jobs are prepared,
    or the UNet advances all samples that can share its call by one step.
    """

    def __init__(
        self,
        models: Models,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
    ) -> None:
        self._models = models
        self._settings = settings
        self._clock = clock
        self._meter = meter
        self._active_jobs: dict[str, ActiveJob] = {}  # oldest first
        self._scheduler = FairScheduler()
        self._busy_s = 0.0
        self._previewing_s = 0.0

    @property
    def device(self) -> str:
        return str(self._models.device)

    def gpu_bytes(self) -> int:
        """Bytes that this process has reserved on the GPU; 0 without one. Thread-safe."""
        return torch.cuda.memory_reserved() if self._models.device.type == "cuda" else 0

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Load the default model, warm it up and measure its calls."""
        self._models.get(None)

    def submit(self, job: EngineJob) -> None:
        self._active_jobs[job.id] = ActiveJob(job)

    def cancel(self, job_id: str) -> None:
        active = self._active_jobs.pop(job_id, None)
        if active is not None and active.unbatched is not None:
            active.unbatched.close()

    def in_flight(self) -> int:
        return len(self._active_jobs)

    def resident(self) -> dict[str, ResidentModel]:
        return self._models.loaded()

    def fits(self, model: str) -> bool:
        return self._models.fits(model)

    def unload(self, model: str) -> bool:
        in_use = any(active.model == model for active in self._active_jobs.values())
        return not in_use and self._models.unload(model)

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
        """Prepare the oldest new jobs of one model; None if there are none, or no memory for it.

        No job overtakes one that waits for memory for its model: the jobs in flight would keep
        theirs loaded for ever.
        """
        new = [active for active in self._active_jobs.values() if not active.prepared]
        if not new:
            return None
        first = new[0]
        in_use = {active.model for active in self._active_jobs.values() if active.prepared}
        try:
            model = self._models.get(first.model, in_use)
        except (UnknownModelError, OSError, torch.OutOfMemoryError) as error:
            return [self._fail(first, error)]
        if model is None:
            return None
        if isinstance(model, UnbatchedModel):
            try:
                first.unbatched = model.family.start(first.job)
            except ValueError as error:
                return [self._fail(first, error)]
            return [Started(first.job.id, first.unbatched.steps)]
        if first.loras and self._settings.fuse_qkv:
            # The LoRA layers would wrap projections that are no longer called.
            return [self._fail(first, ValueError("engine.fuse_qkv is on, which excludes LoRAs"))]
        together = [active for active in new if active.key == first.key][: model.limits.max_coded]
        try:
            model.adapters.activate(first.loras)
            samples = model.family.prepare([active.job for active in together])
        except Exception as error:
            return self._handle_failure(together, model, error, pictures=len(together))
        for active in together:
            active.samples = samples[active.job.id]
            active.shape = tuple(active.samples[0].latents.shape[1:])
        return [Started(active.job.id, active.steps) for active in together]

    # --- denoise ---------------------------------------------------------------------------

    def _denoise(self) -> list[EngineEvent] | None:
        """One UNet call and the scheduler step of each of its samples; None if no sample waits."""
        waiting: list[tuple[Key, ActiveJob]] = []
        busy: set[str] = set()  # models that run one job at a time
        for active in self._active_jobs.values():
            run = active.unbatched
            if active.undenoised() or (run is not None and active.model not in busy):
                waiting.append((active.key, active))
                if run is not None and run.exclusive:
                    busy.add(active.model)
        if not waiting:
            return None
        client, key = self._scheduler.next([(active.job.client, key) for key, active in waiting])
        alike = [active for its_key, active in waiting if its_key == key]
        model = self._models.resident(key.model)
        if isinstance(model, UnbatchedModel):
            return self._resume(alike[0])
        return self._step(alike, model, self._choose(key, alike, model, client))

    def _resume(self, active: ActiveJob) -> list[EngineEvent]:
        """One step of an unbatched pipeline, or one tile of an upscale."""
        job, run = active.job, active.unbatched
        assert run is not None
        began = self._clock()
        try:
            picture = run.resume()
        except Exception as error:
            return [self._fail(active, error)]
        self._scheduler.charge(active.key, self._clock() - began, {job.client: 1})
        events: list[EngineEvent] = [Stepped(job.id, run.step, run.steps)]
        if picture is not None:
            index = run.index - 1
            seed = job.request.seed_of(index) if isinstance(job.request, Txt2Img) else 0
            events.append(ImageReady(job.id, index, seed, picture))
            if run.index == run.images:
                events.append(Finished(job.id))
                self.cancel(job.id)
        return events

    def _choose(
        self, key: Key, active_jobs: Sequence[ActiveJob], model: SteppedModel, client: str
    ) -> list[Sample]:
        candidates = [
            Candidate(sample, active.steps, leads=active.job.client == client)
            for active in active_jobs
            for sample in active.undenoised()
        ]
        if active_jobs[0].exact:
            return [candidates[0].sample]
        area = key.shape[-2] * key.shape[-1]
        limit = self._settings.max_batch_rows
        budget = model.costs.knee(area) if isinstance(limit, str) else limit
        return scheduler.choose(candidates, lambda rows: model.costs.seconds(rows, area), budget)

    def _step(
        self, waiting: Sequence[ActiveJob], model: SteppedModel, chosen: Sequence[Sample]
    ) -> list[EngineEvent]:
        active_jobs = [f for f in waiting if any(s in chosen for s in f.samples)]
        rows: Counter[str] = Counter()  # by client
        for active in active_jobs:
            rows[active.job.client] += sum(len(s.rows) for s in active.samples if s in chosen)
        began = self._clock()
        try:
            model.adapters.activate(active_jobs[0].loras)
            failed = model.family.denoiser.step(chosen, model.limits.max_rows)
        except Exception as error:
            return self._handle_failure(active_jobs, model, error, rows=rows.total())
        seconds = self._clock() - began
        if self._meter is not None:
            self._meter.denoised(rows.total(), seconds)
        self._scheduler.charge(active_jobs[0].key, seconds, rows)
        events: list[EngineEvent] = []
        for active in sorted(active_jobs, key=lambda active: active.previewed_at):
            failure = next((error for sample, error in failed if sample in active.samples), None)
            if failure is not None:
                events.append(self._fail(active, failure))
            else:
                events.append(Stepped(active.job.id, active.step, active.steps))
                events += self._preview(active, model)
        return events

    def _preview(self, active: ActiveJob, model: SteppedModel) -> list[EngineEvent]:
        """A preview if one is due. After a job's first, only within `PREVIEW_SHARE` of the time."""
        now = self._clock()
        due = now - active.previewed_at >= self._settings.preview_every_s
        again = active.previewed_at != float("-inf")
        if again and self._previewing_s > PREVIEW_SHARE * self._busy_s:
            return []
        latents = active.samples[0].predicted_latents() if due else None
        if latents is None:
            return []
        active.previewed_at = now
        webp = model.preview.render(latents)
        self._previewing_s += self._clock() - now
        return [Previewed(active.job.id, webp)]

    # --- decode ----------------------------------------------------------------------------

    def _decode(self) -> list[EngineEvent] | None:
        """One VAE call for denoised samples; None if there are none."""
        first = next((f for f in self._active_jobs.values() if any(f.undecoded())), None)
        if first is None:
            return None
        model = self._models.resident(first.model)
        assert isinstance(model, SteppedModel)
        pairs = [
            (active, sample)
            for active in self._active_jobs.values()
            if active.key == first.key
            for sample in active.undecoded()
        ][: 1 if first.exact else model.limits.max_coded]
        began = self._clock()
        try:
            pictures = model.family.decode([sample for _, sample in pairs])
        except Exception as error:
            active_jobs = list({active.job.id: active for active, _ in pairs}.values())
            return self._handle_failure(active_jobs, model, error, pictures=len(pairs))
        seconds = self._clock() - began
        if self._meter is not None:
            self._meter.decoded(len(pairs), seconds)
        self._scheduler.charge(first.key, seconds, Counter(a.job.client for a, _ in pairs))
        events: list[EngineEvent] = []
        for (active, sample), picture in zip(pairs, pictures, strict=True):
            active.decoded.add(sample.index)
            events.append(ImageReady(active.job.id, sample.index, sample.seed, picture))
            if len(active.decoded) == len(active.samples):
                events.append(Finished(active.job.id))
                self.cancel(active.job.id)
        return events

    # --- failures --------------------------------------------------------------------------

    def _handle_failure(
        self,
        active_jobs: Sequence[ActiveJob],
        model: SteppedModel,
        error: Exception,
        *,
        rows: int = 0,
        pictures: int = 0,
    ) -> list[EngineEvent]:
        """Handle a failed call: retry with less memory, isolate its jobs, or fail the one job.

        It was a UNet call of so many rows, or a VAE call of so many pictures.

        Raises:
            torch.AcceleratorError: the GPU context is lost; only a new process can go on.
        """
        if memory.is_out_of_memory(error):
            if self._models.device.type == "cuda":
                torch.cuda.empty_cache()
            if rows:
                note = model.limits.shrink_denoising(rows)
            else:
                requests = [active.job.model_request for active in active_jobs]
                side = max(max(request.width, request.height) for request in requests)
                note = model.limits.shrink_coding(pictures, side)
            model.apply_limits()
            if note is not None:
                log.warning(note, model=model.name)
                return [JobWarning(active.job.id, note) for active in active_jobs]
        elif isinstance(error, torch.AcceleratorError):
            raise error
        elif len(active_jobs) > 1:
            for active in active_jobs:
                active.isolated = True
            return []
        return [self._fail(active, error) for active in active_jobs]

    def _fail(self, active: ActiveJob, error: Exception) -> Failed:
        kind, detail = "engine", f"{type(error).__name__}: {error}"
        if memory.is_out_of_memory(error):
            kind, detail = "out-of-memory", "there is not enough memory for this job"
        elif isinstance(error, UnknownModelError | OSError):
            kind, detail = "model", str(error)
        elif isinstance(error, ValueError):
            kind, detail = "request", str(error)
        log.error("job failed", job_id=active.job.id, kind=kind, exc_info=error)
        self.cancel(active.job.id)
        return Failed(active.job.id, kind, detail)


def from_settings(
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    meter: Meter | None = None,
) -> DiffusersEngine:
    """The engine over the models, LoRAs and upscalers of the data folder."""
    models = Models(
        ModelCatalog(settings.models_dir, settings.models.default),
        AdapterCatalog(settings.loras_dir, settings.embeddings_dir),
        UpscalerCatalog(settings.upscalers_dir),
        settings.engine,
        clock,
    )
    return DiffusersEngine(models, settings.engine, clock, meter)
