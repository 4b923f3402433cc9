"""The loop: admit, step, preview, decode, emit."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import torch

from darkroom.catalog.models import ModelCatalog, UnknownModelError
from darkroom.config import EngineSettings
from darkroom.engine import batching
from darkroom.engine.base import (
    Broken,
    Developed,
    EngineEvent,
    EngineJob,
    Finished,
    Previewed,
    Started,
    Stepped,
)
from darkroom.engine.models import LoadedModel, Models
from darkroom.engine.sample import Sample
from darkroom.schemas import ResolvedRequest, Task

log = structlog.get_logger()


@dataclass
class _Flight:
    """A job between `submit` and its last event."""

    job: EngineJob
    samples: list[Sample] = field(default_factory=list)
    developed: set[int] = field(default_factory=set)
    previewed_at: float = float("-inf")

    @property
    def steps(self) -> int:
        return sum(len(sample.timesteps) for sample in self.samples)

    @property
    def step(self) -> int:
        return sum(sample.step for sample in self.samples)


class DiffusersEngine:
    """An `Engine` over diffusers components, one denoising step at a time.

    Jobs in flight take turns a step each, so that a long one does not make a short one wait for
    its end. Only jobs of the model that the oldest one wants take part: the others come when it
    is their turn to be oldest, and the model is switched then.

    Args:
        catalog: where models lie.
        settings: device, dtype, previews.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = Models(catalog, settings)
        self._settings = settings
        self._clock = clock
        self._flights: dict[str, _Flight] = {}  # oldest first
        self._turns: list[str] = []

    @property
    def device(self) -> str:
        return str(self._models.device)

    def warm_up(self) -> None:
        """Load the default model and take one step with it: first calls are slow."""
        with torch.inference_mode():
            model = self._models.get(None)
            size = model.family.unet.config.sample_size * 8
            request = ResolvedRequest(
                task=Task.TXT2IMG,
                model=model.name,
                prompt="",
                negative_prompt="",
                width=size,
                height=size,
                num_inference_steps=1,
                guidance_scale=2.0,
                num_images=1,
                seed=0,
                scheduler="ddim",
            )
            sample = model.family.prepare(request, 0, None, None)
            model.family.step([sample])
            model.family.decode(sample)

    def submit(self, job: EngineJob) -> None:
        self._flights[job.id] = _Flight(job)
        self._turns.append(job.id)

    def cancel(self, job_id: str) -> None:
        if self._flights.pop(job_id, None) is not None:
            self._turns.remove(job_id)

    def in_flight(self) -> int:
        return len(self._flights)

    @torch.inference_mode()
    def tick(self) -> list[EngineEvent]:
        flight = self._next()
        if flight is None:
            return []
        job_id = flight.job.id
        try:
            events = self._work(flight, self._models.get(flight.job.request.model))
        except torch.OutOfMemoryError:
            log.exception("out of memory", job_id=job_id)
            torch.cuda.empty_cache()
            events = [Broken(job_id, "out-of-memory", "there is not enough memory for this job")]
        except (UnknownModelError, OSError) as error:
            log.exception("model cannot be loaded", job_id=job_id)
            events = [Broken(job_id, "model", f"the model cannot be loaded: {error}")]
        except Exception as error:
            # One job's failure, whatever it is, must not take its neighbours with it.
            log.exception("job failed", job_id=job_id)
            events = [Broken(job_id, "engine", f"{type(error).__name__}: {error}")]
        if isinstance(events[-1], Finished | Broken):
            self.cancel(job_id)
        return events

    def _next(self) -> _Flight | None:
        """Whose turn it is, among the jobs of the oldest one's model."""
        if not self._flights:
            return None
        model = next(iter(self._flights.values())).job.request.model
        turn = next(i for i in self._turns if self._flights[i].job.request.model == model)
        self._turns.remove(turn)
        self._turns.append(turn)
        return self._flights[turn]

    def _work(self, flight: _Flight, model: LoadedModel) -> list[EngineEvent]:
        """One turn of one job: prepare it, or step its samples, or decode one image."""
        job = flight.job
        if not flight.samples:
            flight.samples = [
                model.family.prepare(job.request, index, job.image, job.mask)
                for index in range(job.request.num_images)
            ]
            return [Started(job.id, flight.steps)]

        batch = batching.choose(flight.samples, self._settings.max_batch_rows)
        if batch:
            model.family.step(batch)
            events: list[EngineEvent] = [Stepped(job.id, flight.step, flight.steps)]
            return events + self._preview(flight, model)

        sample = next(s for s in flight.samples if s.index not in flight.developed)
        picture = model.family.decode(sample)
        flight.developed.add(sample.index)
        events = [Developed(job.id, sample.index, sample.seed, picture)]
        if len(flight.developed) == len(flight.samples):
            events.append(Finished(job.id))
        return events

    def _preview(self, flight: _Flight, model: LoadedModel) -> list[EngineEvent]:
        now = self._clock()
        if now - flight.previewed_at < self._settings.preview_every_s:
            return []
        latents = model.family.predicted_latents(flight.samples[0])
        if latents is None:
            return []
        flight.previewed_at = now
        return [Previewed(flight.job.id, model.preview.render(latents))]
