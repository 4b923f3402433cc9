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


class Run:
    """Runs a pipeline for one image, a step at a time.

    Args:
        call: makes the image; calls its argument after each step.
    """

    def __init__(self, call: Callable[[Callable[[], None]], Image.Image]) -> None:
        self._call = call
        self._go: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[Image.Image | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="unbatched", daemon=True)
        self._started = False

    def resume(self) -> Image.Image | None:
        """Run to the end of the next step.

        Returns:
            The image when it is finished, else None.

        Raises:
            Exception: what the pipeline raised.
        """
        if self._started:
            self._go.put(True)
        else:
            self._started = True
            self._thread.start()
        came = self._came.get()
        if isinstance(came, BaseException):
            raise came
        return came

    def close(self) -> None:
        """Stop the thread at the current step and wait for its end."""
        if self._started and self._thread.is_alive():
            self._go.put(False)
            self._thread.join()

    def _work(self) -> None:
        came: Image.Image | BaseException
        try:
            with torch.inference_mode():
                came = self._call(self._step)
        except _CancelledError:
            return
        except BaseException as error:  # raised again in `resume`
            came = error
        self._came.put(came)

    def _step(self) -> None:
        self._came.put(None)
        if not self._go.get():
            raise _CancelledError


class Development:
    """A job of an unbatched pipeline: its images one after the other; a `Resumable`.

    `steps` is a guess for pipelines that have no step callback.
    """

    exclusive = True  # the pipeline holds what belongs to one job

    def __init__(self, runs: list[Run], steps: int) -> None:
        self._runs = runs
        self.images = len(runs)
        self.steps = steps * len(runs)
        self.step = 0
        self.index = 0

    def resume(self) -> Image.Image | None:
        """Run one more step; the image when it is finished, else None.

        Raises:
            Exception: what the pipeline raised.
        """
        picture = self._runs[self.index].resume()
        if picture is None:
            self.step = min(self.step + 1, self.steps)
        else:
            self.index += 1
            self.step = self.steps * self.index // len(self._runs)
        return picture

    def close(self) -> None:
        """Stop at the current step."""
        for run in self._runs[self.index : self.index + 1]:
            run.close()


class UnbatchedRequest:
    """A loaded model whose own pipeline does all the work.

    Args:
        pipeline: of any class that AutoPipeline knows.
        tasks: what it can do.
    """

    def __init__(self, pipeline: Any, tasks: tuple[Task, ...]) -> None:
        # These import every pipeline there is: for those who have no such model, for nothing.
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

        self._pipelines: dict[Task, Any] = {}
        for task in tasks:
            match task:
                case Task.IMG2IMG:
                    made = AutoPipelineForImage2Image.from_pipe(pipeline)
                case Task.INPAINT:
                    made = AutoPipelineForInpainting.from_pipe(pipeline)
                case _:
                    made = pipeline
            made.set_progress_bar_config(disable=True)
            self._pipelines[task] = made

    def start(self, job: EngineJob) -> Development:
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
        runs = [self._run(job, index) for index in range(request.num_images)]
        strength = request.strength if isinstance(request, Img2Img | Inpaint) else 1.0
        return Development(runs, max(1, int(request.num_inference_steps * strength)))

    def _run(self, job: EngineJob, index: int) -> Run:
        request = job.model_request
        pipeline = self._pipelines[request.task]
        accepted = inspect.signature(pipeline.__call__).parameters

        def call(step: Callable[[], None]) -> Image.Image:
            def at_step_end(_pipeline: Any, _index: int, _timestep: Any, kept: Any) -> Any:
                step()
                return kept

            arguments = _arguments(job) | {
                "generator": torch.Generator("cpu").manual_seed(request.seed_of(index)),
                "callback_on_step_end": at_step_end,
            }
            known = {name: value for name, value in arguments.items() if name in accepted}
            picture: Image.Image = pipeline(**known).images[0]
            if (
                isinstance(request, Inpaint)
                and request.keep_unmasked
                and request.padding_mask_crop is None
            ):
                picture = VaeImageProcessor().apply_overlay(
                    arguments["mask_image"], arguments["image"], picture
                )
            return picture.convert("RGB")

        return Run(call)


def _arguments(job: EngineJob) -> dict[str, Any]:
    """A request in the pipelines' words; those that a pipeline has no word for are left out."""
    request = job.model_request
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or None,
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
    }
    if not isinstance(request, Img2Img | Inpaint):
        return arguments
    picture, mask = sources.sized(job)
    arguments |= {"image": picture, "strength": request.strength}
    if isinstance(request, Inpaint):
        arguments |= {"mask_image": mask, "padding_mask_crop": request.padding_mask_crop}
    return arguments
