"""The engine: schedule, run, postprocess, in a loop that the worker drives."""

import time
from collections.abc import Callable, Sequence

import structlog
import torch

from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.catalog.upscalers import UpscalerCatalog
from darkroom.config import EngineSettings, Settings
from darkroom.engine import errors, memory
from darkroom.engine.active_job import ActiveJob, LastPreview
from darkroom.engine.base import (
    EngineEvent,
    EngineJob,
    EngineMemory,
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
from darkroom.engine.errors import Kind
from darkroom.engine.explain.recorder import Recorder
from darkroom.engine.families.base import Sample
from darkroom.engine.model_manager import LoadedModel, ModelManager, pick_device
from darkroom.engine.runner import Result, Runner
from darkroom.engine.scheduler import Call, Decode, Denoise, Prepare, Refuse, Scheduler
from darkroom.errors import message

log = structlog.get_logger()

PREVIEW_SHARE = 0.01  # of the engine's time that previews after an image's first may take
MOST_PREVIEWS = 150  # of a job, about, however many images and steps it has
WAIT_FOR_LOAD_S = 0.05  # in a tick that has nothing else to do
MAX_RESTARTS = 3  # of a job whose own step ran out of memory


class DiffusersEngine:
    """An `Engine` over diffusers components, one call of one network at a time."""

    def __init__(
        self,
        models: ModelManager,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
    ) -> None:
        self._models = models
        self._settings = settings
        self._clock = clock
        self._active_jobs: dict[str, ActiveJob] = {}  # oldest first
        self._scheduler = Scheduler(models, settings)
        self._runner = Runner(clock, models.device, meter)
        models.on_unload = self._runner.forget
        self._busy_s = 0.0
        self._previewing_s = 0.0

    @property
    def device(self) -> str:
        return str(self._models.device)

    @property
    def device_name(self) -> str:
        """What the GPU or the CPU is called."""
        return memory.device_name(self._models.device)

    def free_bytes(self) -> int | None:
        """Of the device's memory, whoever uses the rest; None if not known. Thread-safe."""
        return memory.free_bytes(self._models.device)

    def gpu_bytes(self) -> int:
        """Bytes that this process has reserved on the GPU; 0 without one. Thread-safe."""
        return torch.cuda.memory_reserved() if self._models.device.type == "cuda" else 0

    def broken(self) -> dict[str, str]:
        """Models that could not be loaded, with the reason, until their files change."""
        return self._models.broken()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Load the default model, warm it up and measure its calls."""
        try:
            while self._models.get(None) is None:
                self._models.wait(WAIT_FOR_LOAD_S)
        except Exception as error:
            errors.survivable(error)
            # Its jobs fail with the reason. Jobs of other models go on.
            log.error("default model not loaded", reason=str(error))

    def submit(self, job: EngineJob) -> None:
        self._active_jobs[job.id] = ActiveJob(job)

    def cancel(self, job_id: str) -> None:
        active = self._active_jobs.pop(job_id, None)
        if active is not None:
            self._close(active)

    def _close(self, active: ActiveJob) -> None:
        if active.samples:
            family = self._models.resident(active.model).family
            for sample in active.samples:
                family.close(sample)

    def in_flight(self) -> int:
        return len(self._active_jobs)

    def resident(self) -> dict[str, ResidentModel]:
        return self._models.loaded()

    def memory(self) -> EngineMemory:
        return self._models.memory()

    def fits(self, model: str) -> bool:
        return self._models.fits(model)

    def unload(self, model: str) -> bool:
        in_use = any(active.model == model for active in self._active_jobs.values())
        return not in_use and self._models.unload(model)

    @torch.inference_mode()
    def tick(self) -> list[EngineEvent]:
        began = self._clock()
        work = self._scheduler.schedule(list(self._active_jobs.values()))
        if work is None:
            self._models.wait(WAIT_FOR_LOAD_S)
            return []
        if isinstance(work, Refuse):
            errors.survivable(work.error)
            return [self._fail(work.job, work.error)]
        if not self._models.gate.acquire(timeout=WAIT_FOR_LOAD_S):
            return []  # a network is being built; see `loading.load_pipeline`
        try:
            result = self._runner.run(work)
        finally:
            self._models.gate.release()
        events = self._postprocess(work, result)
        self._busy_s += self._clock() - began
        return events

    # --- postprocess -----------------------------------------------------------------------

    def _postprocess(self, work: Call, result: Result) -> list[EngineEvent]:
        for done, seconds in self._runner.measured():
            self._scheduler.charge(done, seconds)
            _note_seconds(done, seconds)
        if result.error is not None:
            return self._handle_failure(work, result.error)
        if work.model.limits.worked():
            work.model.apply_limits()
        match work:
            case Prepare():
                return self._prepared(work, result)
            case Denoise():
                return self._stepped(work, result)
            case Decode():
                return self._decoded(work, result)

    def _prepared(self, work: Prepare, result: Result) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for active in work.jobs:
            active.begin(result.value[active.job.id])
            if active.restarts:
                continue
            events.append(Started(active.job.id, active.steps))
            notes = work.model.family.notes(active.job)
            events += [JobWarning(active.job.id, note) for note in notes]
        return events

    def _stepped(self, work: Denoise, result: Result) -> list[EngineEvent]:
        failed: dict[int, Exception] = {id(sample): error for sample, error in result.value}
        events: list[EngineEvent] = []
        stepped: list[ActiveJob] = []
        for active in work.jobs:
            failures = [failed[id(sample)] for sample in active.samples if id(sample) in failed]
            if failures:
                events += self._handle_own_failure(work, active, failures[0])
            else:
                active.furthest = max(active.furthest, active.step)
                if active.furthest:  # a guided step may take two calls
                    events.append(Stepped(active.job.id, active.furthest, active.steps))
                stepped.append(active)
        return events + self._previews(work, stepped)

    def _previews(self, work: Denoise, stepped: Sequence[ActiveJob]) -> list[EngineEvent]:
        """The previews that are due of a call's images, those that waited longest first."""
        called = {id(sample) for sample in work.samples}
        images = [
            (job, sample) for job in stepped for sample in job.samples if id(sample) in called
        ]

        def previewed_at(image: tuple[ActiveJob, Sample]) -> float:
            last = image[0].previews.get(image[1].index)
            return float("-inf") if last is None else last.at

        made = (self._preview(*image, work.model) for image in sorted(images, key=previewed_at))
        return [event for event in made if event is not None]

    def _preview(self, active: ActiveJob, sample: Sample, model: LoadedModel) -> Previewed | None:
        """A preview if one is due; after an image's first only within `PREVIEW_SHARE` of the time.

        A job of many images and steps gets fewer of each, so that all of them together are few.
        """
        now = self._clock()
        last = active.previews.get(sample.index)
        if last is not None:
            too_soon = now - last.at < self._settings.preview_every_s
            too_costly = self._previewing_s > PREVIEW_SHARE * self._busy_s
            too_many = 0 <= sample.step - last.step < sample.steps * active.images / MOST_PREVIEWS
            if too_soon or too_costly or too_many:
                return None
        try:
            webp = model.family.preview(sample)
        except Exception as error:
            errors.survivable(error)
            log.warning("preview failed", model=model.name, exc_info=error)
            webp = None
        active.previews[sample.index] = LastPreview(now, sample.step)
        self._previewing_s += self._clock() - now
        if webp is None:
            return None
        return Previewed(active.job.id, webp, sample.index, sample.step, sample.steps)

    def _decoded(self, work: Decode, result: Result) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        failures: dict[ActiveJob, Exception] = {}
        for (active, sample), made in zip(work.pairs, result.value, strict=True):
            if isinstance(made, Exception):
                failures.setdefault(active, made)
                continue
            active.decoded.add(sample.index)
            explanation = None
            if sample.recorder is not None:
                explanation = sample.recorder.explanation(active.prepare_s / active.images)
                if explanation is None:
                    events.append(JobWarning(active.job.id, _why_not(sample.recorder)))
            ready = ImageReady(active.job.id, sample.index, sample.seed, made, explanation)
            events.append(ready)
            if len(active.decoded) == active.images:
                events.append(Finished(active.job.id))
                self.cancel(active.job.id)
        for active, error in failures.items():
            events += self._handle_own_failure(work, active, error)
        return events

    # --- failures --------------------------------------------------------------------------

    def _handle_failure(self, work: Call, error: Exception) -> list[EngineEvent]:
        """Handle a failed call: retry with less memory, isolate its jobs, or fail the one job.

        Raises:
            Exception: the GPU context is lost; only a new process can go on.
        """
        kind = errors.survivable(error)
        if kind is Kind.MEMORY:
            note = self._lower_limits(work, error)
            if note is not None:
                return [JobWarning(active.job.id, note) for active in work.jobs]
        elif len(work.jobs) > 1:
            for active in work.jobs:
                active.isolated = True
            return []
        return [self._fail(active, error) for active in work.jobs]

    def _handle_own_failure(
        self, work: Denoise | Decode, active: ActiveJob, error: Exception
    ) -> list[EngineEvent]:
        """Handle the failure of one job after a call: begin it again with less memory, or fail it.

        Raises:
            Exception: the GPU context is lost; only a new process can go on.
        """
        kind = errors.survivable(error)
        if kind is Kind.MEMORY and active.restarts < MAX_RESTARTS:
            note = self._lower_limits(work, error)
            if note is not None:
                self._close(active)
                active.restart()
                return [JobWarning(active.job.id, note)]
        return [self._fail(active, error)]

    def _lower_limits(self, work: Call, error: Exception) -> str | None:
        """Let the model do less at a time; returns what, or None if nothing is left to lower."""
        errors.drop_frames(error)  # which hold what the call had taken
        self._models.free_cache()
        limits = work.model.limits
        match work:
            case Denoise(samples=samples):
                rows = sum(sample.row_count for sample in samples if not sample.denoised)
                note = limits.shrink_denoising(max(1, rows), samples[0].area)
            case _:
                sides = (max(active.size) for active in work.jobs)
                note = limits.shrink_coding(work.pictures, max(sides))
        work.model.apply_limits()
        if note is not None:
            log.warning(note, model=work.model.name)
        return note

    def _fail(self, active: ActiveJob, error: Exception) -> Failed:
        kind = errors.classify(error)
        log.error("job failed", job_id=active.job.id, kind=str(kind), exc_info=error)
        self.cancel(active.job.id)
        return Failed(active.job.id, str(kind), errors.describe(error, kind))


def _note_seconds(work: Call, seconds: float) -> None:
    """Note for those who asked to know it what their share of a call's time was."""
    match work:
        case Prepare(jobs=jobs):
            for active in jobs:
                active.prepare_s += seconds / len(jobs)
        case Denoise(samples=samples):
            for sample in samples:
                if sample.recorder is not None:
                    sample.recorder.denoise_s += seconds / len(samples)
        case Decode(pairs=pairs):
            for _, sample in pairs:
                if sample.recorder is not None:
                    sample.recorder.decode_s += seconds / len(pairs)


def _why_not(recorder: Recorder) -> str:
    error = recorder.failure
    assert error is not None
    reason = errors.describe(error, errors.classify(error))
    return message(
        "explain_failed", "a picture could not be explained: {reason}", reason=str(reason)
    )


def from_settings(
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    meter: Meter | None = None,
) -> DiffusersEngine:
    """The engine over the models, LoRAs and upscalers of the data folder."""
    models = ModelManager(
        ModelCatalog.of(settings, lambda: pick_device(settings.engine.device).type != "cpu"),
        AdapterCatalog.of(settings),
        UpscalerCatalog.of(settings),
        settings.engine,
        clock,
        settings.openvino_dir,
    )
    return DiffusersEngine(models, settings.engine, clock, meter)
