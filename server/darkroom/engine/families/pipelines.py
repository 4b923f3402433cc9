"""All families that diffusers' AutoPipeline knows, by their own pipelines, with shared calls.

Each image has a pipeline object of its own, around the model's networks. It is suspended at each
call of the denoiser and of the VAE's decoder (see `pipeline_run`), and suspended calls of equal
form are made as one. A family for which that is not tested runs its calls alone.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import diffusers
import structlog
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.model_spec import ModelSpec
from darkroom.engine import calls, flow_schedulers, vae
from darkroom.engine.adapters import NONE, Adapters, LoraSet
from darkroom.engine.base import EngineJob
from darkroom.engine.block_cache import BlockCache
from darkroom.engine.calls import Applied, Call
from darkroom.engine.errors import NotFiniteError
from darkroom.engine.explain.joint import JOINTS, explained
from darkroom.engine.explain.recorder import Moment, Prompt, Recorder
from darkroom.engine.families import prompt_length, sources
from darkroom.engine.families.base import WarmedUp
from darkroom.engine.families.pipeline_run import PipelineRun, Suspended
from darkroom.engine.families.text_cache import TextCache
from darkroom.engine.families.traits import ALONE, TRAITS, Traits
from darkroom.engine.memory import Offload
from darkroom.engine.offload import Offloading
from darkroom.engine.previews import Preview
from darkroom.errors import message
from darkroom.requests import Edit, Img2Img, Inpaint, MaskedContent, Task

log = structlog.get_logger()


@dataclass(eq=False)
class PipelineSample:
    """One image by a pipeline of its own; a `Sample`."""

    index: int
    seed: int
    size: tuple[int, int]  # width and height of the image, in pixels
    area: int  # pixels that the denoiser sees: of the image, and of the references
    geometry: Hashable  # what its calls depend on besides the shapes of their arguments
    pipeline: Any
    overlay: Callable[[Image.Image], Image.Image]  # puts back what inpainting keeps
    asked_steps: int  # until the pipeline says how many it takes
    ragged: tuple[str, ...] = ()  # arguments whose lengths may differ in a call
    skipped: int = 0
    step: int = 0
    prediction: torch.Tensor | None = None  # x₀ by the last step, as the denoiser sees latents
    alone: Hashable = None  # not None: it shares no calls
    loras: LoraSet = NONE
    recorder: Recorder | None = None
    guided: bool = False  # whether this step's call with the prompt was made
    skips: bool = False  # whether blocks are skipped at steps where little changes
    run: PipelineRun = field(init=False)

    @property
    def steps(self) -> int:
        known = getattr(self.pipeline, "_num_timesteps", None) or self.asked_steps
        return max(int(known), self.step, 1)

    @property
    def suspended(self) -> Suspended | None:
        return self.run.suspended

    @property
    def denoised(self) -> bool:
        return self.suspended is None or self.suspended.decodes

    @property
    def row_count(self) -> int:
        assert self.suspended is not None
        return self.suspended.call.rows

    @property
    def form(self) -> Hashable:
        if self.suspended is None:
            return ("picture", self.alone)
        form = calls.form_without(self.suspended.call, *self.ragged)
        apart = None if self.suspended.decodes else self.loras.apart
        recorded = self.recorder is not None
        return (id(self.suspended.network), self.geometry, form, apart, self.alone, recorded)

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the grid of the transformer's positions."""
        side = self.pipeline.vae_scale_factor * getattr(self.pipeline, "patch_size", 2)
        return self.size[1] // side, self.size[0] // side

    def finished(self) -> Image.Image:
        """The picture, at the size that was asked for, RGB."""
        made = self.run.picture
        assert made is not None
        if made.size != self.size:  # as of Qwen-Image-Edit's inpainting, which has its own
            made = made.resize(self.size, Image.Resampling.LANCZOS)
        return self.overlay(made).convert("RGB")

    def stepped(self, output: torch.Tensor, timestep: Any, latents: torch.Tensor) -> None:
        """Note a step of the scheduler, and what it predicts."""
        self.step += 1
        self.guided = False
        scheduler = self.pipeline.scheduler
        sigmas = getattr(scheduler, "sigmas", None)
        index = getattr(scheduler, "step_index", None)
        flows = scheduler.config.get("prediction_type", "flow_prediction") == "flow_prediction"
        if flows and sigmas is not None and index is not None and output.shape == latents.shape:
            # x = (1 − σ)·x₀ + σ·ε, and the network says v = ε − x₀ (arXiv 2209.03003).
            sigma = sigmas[max(0, index - 1)].to(latents)
            guess = self.prediction = latents - sigma * output
            if self.recorder is not None:
                self.recorder.step(
                    self.step - 1,
                    self.steps,
                    lambda: Moment(
                        float(timestep),
                        1 - float(sigma),
                        float(sigma),
                        latents,
                        latents + (1 - sigma) * output,
                        guess,
                    ),
                )


class PipelineFamily:
    """A loaded model whose own pipelines do all but decide when a network is called.

    Args:
        pipelines: one for each task that the model can do, sharing parts.
        spec: what the catalog knows of the model.
        adapters: its LoRAs.
        traits: what is known of its calls; those of a family that is not known share none.
        cache: what skips blocks of the denoiser, if anything.
    """

    def __init__(
        self,
        pipelines: Mapping[Task, Any],
        spec: ModelSpec,
        adapters: Adapters,
        traits: Traits,
        device: torch.device,
        preview: Preview | None,
        cache: BlockCache | None = None,
    ) -> None:
        self._pipelines = pipelines
        self._spec = spec
        self._adapters = adapters
        self._traits = traits
        self._preview = preview
        self._cache = cache
        self._vae_dtype = getattr(getattr(self._any, "vae", None), "dtype", torch.float32)
        self._joint = JOINTS.get(spec.family.name)
        self._texts = TextCache()
        self._offloading = Offloading(self._any, device)

    def warm_up(self, job: EngineJob) -> WarmedUp | None:
        sample = self._start(job, 0, NONE)
        self._offloading.rest()
        first = sample.suspended
        try:
            while not sample.denoised:
                for _, error in self.step([sample], 1):
                    raise error
            (made,) = self.decode([sample])
            if isinstance(made, Exception):
                raise made
        finally:
            self.close(sample)
        if first is None or not self._traits.batched:
            return None

        def denoise(rows: int) -> Any:
            (one, *_) = first.call.parts(1)
            joined = calls.join([one] * rows)
            return calls.make(first.network, joined, rows, self._whole())

        return WarmedUp(denoise, sample.area)

    def notes(self, job: EngineJob) -> list[str]:
        """That a prompt is longer than what the model reads, if so."""
        limit, pipeline = self._spec.family.max_tokens, self._pipelines[job.model_request.task]
        if limit is None:
            return []
        prompt = job.model_request.prompt
        length = prompt_length.measure(pipeline, prompt, limit, self._traits.chat)
        if length is None or length.tokens <= length.read:
            return []
        return [
            message(
                "prompt_long",
                "the prompt has {tokens} tokens, of which this model reads the first {limit}",
                tokens=length.tokens,
                limit=length.read,
            )
        ]

    # --- prepare ---------------------------------------------------------------------------

    def admits(self, job: EngineJob) -> bool:
        return self._adapters.admits(job.model_request.loras)

    def prepare(self, jobs: Sequence[EngineJob]) -> dict[str, list[PipelineSample]]:
        loras = self._adapters.find(jobs[0].model_request.loras)
        started: dict[str, list[PipelineSample]] = {job.id: [] for job in jobs}
        self._offloading.rest()
        try:
            with self._adapters.applied([loras]):  # to the text encoders
                for job in jobs:
                    for index in range(job.model_request.num_images):
                        started[job.id].append(self._start(job, index, loras))
        except BaseException:
            # A suspended run is never collected as garbage, with all networks that it holds.
            for sample in itertools.chain(*started.values()):
                self.close(sample)
            raise
        finally:
            self._offloading.rest()
        return started

    def _start(self, job: EngineJob, index: int, loras: LoraSet) -> PipelineSample:
        """A sample of a job, run to its first call of the denoiser."""
        request = job.model_request
        if request.task not in self._pipelines:
            can = " and ".join(self._pipelines)
            raise ValueError(f"{request.model} does {can}, not {request.task}")
        resizes = isinstance(request, Img2Img) and request.latent_resize is not None
        fills = isinstance(request, Inpaint) and request.masked_content != MaskedContent.ORIGINAL
        if resizes or fills:
            raise ValueError(f"{request.model} takes no changes of its latents")
        pipeline = self._pipelines[request.task]
        scheduler = flow_schedulers.build(request.scheduler, pipeline.scheduler)
        pipeline = _around(pipeline, type(pipeline), scheduler)
        pipeline.encode_prompt = self._texts.around(pipeline, loras.text_key)
        arguments, overlay = self._arguments(job, index)
        sizes = tuple(picture.size for picture in job.references)
        given = sizes if job.image is None or isinstance(request, Edit) else (job.image.size,)
        shown = self._spec.family.shown_pixels(request.task, given)
        skips = self._cache is not None and not request.exact and not request.explain
        sample = PipelineSample(
            index=index,
            seed=request.seed_of(index),
            size=(request.width, request.height),
            area=request.width * request.height + shown,
            geometry=(request.task, request.width, request.height, sizes),
            pipeline=pipeline,
            overlay=overlay,
            asked_steps=request.num_inference_steps,
            ragged=self._traits.text or (),
            alone=(job.id, index) if skips or not self._traits.batched else None,
            skips=skips,
            loras=loras,
        )
        if request.explain:
            sample.recorder = self._recorder(job, index, sample)
        accepted = inspect.signature(pipeline.__call__).parameters
        known = {name: value for name, value in arguments.items() if name in accepted}
        sample.run = PipelineRun(pipeline, known, sample.stepped, self._vae_dtype)
        sample.run.resume()
        return sample

    def _recorder(self, job: EngineJob, index: int, sample: PipelineSample) -> Recorder:
        """Of what explains a sample."""
        request, joint = job.model_request, self._joint
        if joint is None:
            raise ValueError(f"{request.model} cannot be looked into")
        crop = None
        if isinstance(request, Inpaint) and request.padding_mask_crop is not None:
            _, mask = sources.sized(job)
            crop = sample.pipeline.mask_processor.get_crop_region(
                mask, *sample.size, pad=request.padding_mask_crop
            )
        limit = self._spec.family.max_tokens
        return Recorder(
            index,
            sample.seed,
            request.num_images,
            lambda: Prompt(joint.read(sample.pipeline, request.prompt, limit)),
            functools.partial(self._render, sample.size),
            crop,
        )

    def _arguments(
        self, job: EngineJob, index: int
    ) -> tuple[dict[str, Any], Callable[[Image.Image], Image.Image]]:
        """The arguments of the pipeline, and what finishes its picture."""
        request = job.model_request
        seed = request.seed_of(index)
        arguments = self._spec.call_arguments(request)
        arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
        overlay = _as_it_is
        if isinstance(request, Edit):
            many = self._spec.family.max_references > 1
            arguments["image"] = list(job.references) if many else job.references[0]
        elif isinstance(request, Img2Img | Inpaint):
            picture, mask = sources.sized(job)
            arguments["image"] = picture
            if isinstance(request, Inpaint):
                assert mask is not None
                arguments["mask_image"] = mask
                if request.keep_unmasked and request.padding_mask_crop is None:
                    overlay = functools.partial(_overlay, picture, mask)
        return arguments, overlay

    # --- denoise ---------------------------------------------------------------------------

    def step(
        self, samples: Sequence[PipelineSample], max_rows: int
    ) -> list[tuple[PipelineSample, Exception]]:
        # Rows with the same LoRAs stand side by side, so that they are one piece of a tensor.
        samples = sorted(samples, key=lambda sample: sample.loras.key)
        suspended = [sample.suspended for sample in samples if sample.suspended is not None]
        joined = calls.join(self._padded([each.call for each in suspended]))
        if any(sample.loras.scales for sample in samples):
            loras = [sample.loras for sample in samples for _ in range(sample.row_count)]
            joined = replace(joined, loras=loras)
        network = suspended[0].network
        with explained(network, samples, joined, self._joint):
            output = calls.make(network, joined, max_rows, self._applied(samples, max_rows))
        for sample in samples:
            sample.guided = True
        failed = _hand_back(samples, output)
        for sample in samples:
            if sample.denoised:
                self._forget(sample)
        return failed

    def _applied(self, samples: Sequence[PipelineSample], max_rows: int) -> Applied:
        """What is around each part of a step's call."""
        first = samples[0]
        if self._cache is None or not first.skips or first.suspended is None:
            return self._whole()
        name = f"{id(first)} {first.suspended.kind}"
        return self._cache.sequence(name, max_rows, self._adapters.applied)

    def _whole(self) -> Applied:
        """What is around a call of which nothing is skipped."""
        applied = self._adapters.applied
        return applied if self._cache is None else self._cache.whole(applied)

    def _padded(self, joined: Sequence[Call]) -> Sequence[Call]:
        """The calls with texts of one length, where the family's denoiser takes a mask of them."""
        names = self._traits.text
        if names is None or len(joined) == 1:
            return joined
        return [calls.pad(call, *names, _longest(joined, names[0])) for call in joined]

    def preview(self, sample: PipelineSample) -> bytes | None:
        return None if sample.prediction is None else self._render(sample.size, sample.prediction)

    def _render(self, size: tuple[int, int], latents: torch.Tensor) -> bytes | None:
        if self._preview is None:
            return None
        latents = _planes(latents, size)
        if latents.shape[1] != self._preview.channels:
            return None
        return self._preview.render(latents)

    # --- decode ----------------------------------------------------------------------------

    def decode(self, samples: Sequence[PipelineSample]) -> list[Image.Image | Exception]:
        failed: dict[int, Exception] = {}
        waiting = [sample for sample in samples if sample.suspended is not None]
        if waiting:
            suspended = [sample.suspended for sample in waiting if sample.suspended is not None]
            call = calls.join([each.call for each in suspended])
            pixels = self._decode(suspended[0].network, call)
            failed = {id(sample): error for sample, error in _hand_back(waiting, pixels)}
        return [failed.get(id(sample)) or sample.finished() for sample in samples]

    def _decode(self, network: Any, call: Call) -> Any:
        """The pixels of latents; the VAE may be in another dtype than they."""
        latents = call.batched["z"]
        if not latents.isfinite().all():
            # FLUX.2's pipeline scales latents by numbers that its VAE holds.
            known = all(buffer.isfinite().all() for buffer in network.buffers())
            raise NotFiniteError("denoiser" if known else "VAE")
        return vae.finite(network, lambda: network.decode(latents.to(network.dtype), **call.shared))

    # --- the rest --------------------------------------------------------------------------

    def close(self, sample: PipelineSample) -> None:
        sample.run.close()
        sample.loras = NONE
        self._forget(sample)

    def _forget(self, sample: PipelineSample) -> None:
        if self._cache is not None:
            self._cache.forget(f"{id(sample)} ")

    def tile(self, side: int) -> None:
        vae.tile(getattr(self._any, "vae", None), side)

    def offload(self, how: Offload) -> None:
        self._offloading.begin(how)

    @property
    def _any(self) -> Any:
        return next(iter(self._pipelines.values()))


def build(
    entry: ModelEntry,
    pipeline: Any,
    loras: AdapterCatalog,
    refusal: str | None,
    device: torch.device,
    cache_threshold: float = 0.0,
) -> PipelineFamily:
    """The family of a loaded pipeline, with a pipeline for each task of its model.

    Args:
        refusal: says why it takes no LoRAs; None if it takes some.
        cache_threshold: see `BlockCache`; 0 is none.
    """
    made = {
        task: _around(pipeline, getattr(diffusers, name), pipeline.scheduler)
        for task, name in entry.spec.pipelines.items()
    }
    traits = TRAITS.get(entry.info.family, ALONE)
    preview = None
    if entry.latent_rgb is not None or traits.latents is not None:
        preview = Preview(traits.latents or "sd", entry.latent_rgb)
    adapters = Adapters(pipeline, loras, device, refusal=refusal, flat=traits.flat)
    cache = None
    if cache_threshold:
        try:
            cache = BlockCache(pipeline.transformer, cache_threshold)
        except (AttributeError, ValueError) as error:
            reason = str(error)
            log.warning("no first-block cache for this model", model=entry.info.name, reason=reason)
    return PipelineFamily(made, entry.spec, adapters, traits, device, preview, cache)


def _hand_back(
    samples: Sequence[PipelineSample], output: Any
) -> list[tuple[PipelineSample, Exception]]:
    """Let each sample go on with its rows of an output; returns those that failed."""
    failed: list[tuple[PipelineSample, Exception]] = []
    start = 0
    counts = [sample.row_count for sample in samples]
    for sample, count in zip(samples, counts, strict=True):
        rows = calls.rows_of(output, start, start + count)
        start += count
        try:
            sample.run.resume(rows)
        except Exception as error:
            failed.append((sample, error))
    return failed


def _as_it_is(picture: Image.Image) -> Image.Image:
    return picture


def _overlay(kept: Image.Image, mask: Image.Image, made: Image.Image) -> Image.Image:
    """The picture made, with the pixels of another one where the mask is black."""
    kept, mask = kept.resize(made.size), mask.resize(made.size)
    whole: Image.Image = VaeImageProcessor().apply_overlay(mask, kept, made)
    return whole


def _planes(latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Latents as (1, C, h, w): packed ones, (1, tokens, 4·C), have 2×2 of them in a token."""
    if latents.ndim == 5:  # of a VAE for videos
        return latents[:, :, 0]
    if latents.ndim == 4:
        return latents
    _, tokens, channels = latents.shape
    side = round((size[0] * size[1] / tokens) ** 0.5)  # pixels of a token
    rows, columns = size[1] // side, size[0] // side
    cells = latents[:, : rows * columns].reshape(1, rows, columns, channels // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(1, channels // 4, 2 * rows, 2 * columns)


def _longest(joined: Sequence[Call], name: str) -> int:
    return max(int(call.batched[name].shape[1]) for call in joined)


def _around(pipeline: Any, cls: Any, scheduler: Any) -> Any:
    """A pipeline of another class around the networks of one, with its own scheduler."""
    parts, options = cls._get_signature_keys(cls)
    given = {**pipeline.config, **pipeline.components, "scheduler": scheduler}
    made = cls(**{name: given[name] for name in (*parts, *options) if name in given})
    made.set_progress_bar_config(disable=True)
    return made
