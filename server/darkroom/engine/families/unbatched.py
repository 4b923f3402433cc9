"""Runs every other pipeline that diffusers' AutoPipeline knows, unbatched, paused at each step.

The pipeline's own loop runs in a thread, one step per `resume`. Its calls cannot be shared, but
other jobs run between its steps, and cancelling takes effect at the next one.
"""

import inspect
import queue
import threading
from collections.abc import Callable
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from darkroom.engine.base import EngineJob
from darkroom.engine.families import sources
from darkroom.errors import DarkroomError
from darkroom.requests import Img2Img, Inpaint, MaskedContent, Task


class _CancelledError(DarkroomError):
    """Raised inside the pipeline's call, at the next step, to end it."""


class UnbatchedRun:
    """A job of an unbatched pipeline; a `Resumable`.

    Args:
        draw: makes the image of that index; calls its second argument after each step.
        steps: of an image; a guess for pipelines that have no step callback.
    """

    exclusive = True  # the pipeline holds what belongs to one job

    def __init__(
        self, draw: Callable[[int, Callable[[], None]], Image.Image], images: int, steps: int
    ) -> None:
        self._draw = draw
        self.images = images
        self.steps = steps * images
        self.step = 0
        self.index = 0
        self._go: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[Image.Image | BaseException | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def resume(self) -> Image.Image | None:
        """Run one more step; the image when it is finished, else None. Raises what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="unbatched", daemon=True)
            self._thread.start()
        else:
            self._go.put(True)
        came = self._came.get()
        if isinstance(came, BaseException):
            raise came
        if came is None:
            self.step = min(self.step + 1, self.steps)
        else:
            self.index += 1
            self.step = self.steps * self.index // self.images
        return came

    def close(self) -> None:
        """Stop the thread at the current step and wait for its end."""
        if self._thread is not None:
            self._go.put(False)
            self._thread.join()

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                for index in range(self.images):
                    self._pause(self._draw(index, self._pause))
        except _CancelledError:
            return
        except BaseException as error:  # raised again in `resume`
            self._came.put(error)

    def _pause(self, image: Image.Image | None = None) -> None:
        """Hand over what there is, and wait for the next `resume`."""
        self._came.put(image)
        if not self._go.get():
            raise _CancelledError


class UnbatchedFamily:
    """A loaded model whose own pipeline, any that AutoPipeline knows, does all the work."""

    def __init__(self, pipeline: Any, tasks: tuple[Task, ...]) -> None:
        # Imported here: these import every pipeline there is, which few models need.
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

        others = {Task.IMG2IMG: AutoPipelineForImage2Image, Task.INPAINT: AutoPipelineForInpainting}
        self._pipelines: dict[Task, Any] = {}
        for task in tasks:
            made = others[task].from_pipe(pipeline) if task in others else pipeline
            made.set_progress_bar_config(disable=True)
            self._pipelines[task] = made

    def start(self, job: EngineJob) -> UnbatchedRun:
        """Take a job on; nothing is computed yet. Only one may be under way at a time.

        Raises:
            ValueError: the model cannot do what is asked.
        """
        request = job.model_request
        if request.task not in self._pipelines:
            raise ValueError(f"{request.model} cannot do {request.task}")
        if request.loras:
            raise ValueError(f"{request.model} takes no LoRAs here: its pipeline is run whole")
        resizes = isinstance(request, Img2Img) and request.latent_resize is not None
        refills = (
            isinstance(request, Inpaint) and request.masked_content is not MaskedContent.ORIGINAL
        )
        if resizes or refills:
            raise ValueError(f"{request.model} gives no access to its latents: it is run whole")
        strength = request.strength if isinstance(request, Img2Img | Inpaint) else 1.0
        steps = max(1, int(request.num_inference_steps * strength))
        return UnbatchedRun(
            lambda index, pause: self._draw(job, index, pause), request.num_images, steps
        )

    def _draw(self, job: EngineJob, index: int, pause: Callable[[], None]) -> Image.Image:
        request = job.model_request
        pipeline = self._pipelines[request.task]

        def at_step_end(_pipeline: Any, _index: int, _timestep: Any, kept: Any) -> Any:
            pause()
            return kept

        arguments: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "generator": torch.Generator("cpu").manual_seed(request.seed_of(index)),
            "callback_on_step_end": at_step_end,
        }
        if isinstance(request, Img2Img | Inpaint):
            picture, mask = sources.sized(job)
            arguments |= {"image": picture, "strength": request.strength}
        if isinstance(request, Inpaint):
            arguments |= {"mask_image": mask, "padding_mask_crop": request.padding_mask_crop}
        # What a pipeline has no word for is left out.
        accepted = inspect.signature(pipeline.__call__).parameters
        known = {name: value for name, value in arguments.items() if name in accepted}
        made: Image.Image = pipeline(**known).images[0]
        keeps = isinstance(request, Inpaint) and request.keep_unmasked
        if keeps and arguments["padding_mask_crop"] is None:
            made = VaeImageProcessor().apply_overlay(mask, picture, made)
        return made.convert("RGB")
