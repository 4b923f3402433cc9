"""Answers to A1111's requests: pictures in base64, and how they were made."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, g, jsonify

import darkroom
from darkroom.api import errors
from darkroom.api.context import Context
from darkroom.catalog import schedulers
from darkroom.compat.a1111 import samplers
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, metadata
from darkroom.requests import (
    RESOLVED,
    Img2Img,
    Inpaint,
    OutputFormat,
    ResolvedRequest,
    Upscale,
)
from darkroom.responses import Image, Job, JobStatus, Problem


def as_error(problem: Problem) -> dict[str, Any]:
    """A problem as A1111 answers an exception (modules/api/api.py, `handle_exception`)."""
    return {
        "error": problem.title,
        "detail": problem.detail,
        "body": "",
        "errors": "; ".join(f"{error.pointer}: {error.detail}" for error in problem.errors),
        "request_id": problem.request_id,
    }


@dataclass(frozen=True)
class Answer:
    """The answer to a txt2img or img2img request, to be sent when its jobs have ended.

    Attributes:
        here: the application's context.
        parameters: the request, with defaults filled in.
        ignored: names of ignored fields.
    """

    here: Context
    parameters: Mapping[str, Any]
    ignored: Ignored

    def send(self, jobs: Sequence[Job], files: Sequence[bytes] | None = None) -> Response:
        """Answer with the pictures of ended jobs, or with the error of the first that failed.

        An interrupted job has the pictures that were finished. If there is none at all, the jobs'
        last previews are sent, as A1111 sends an unfinished picture.

        Args:
            jobs: at least one, in order.
            files: pictures to send instead of the jobs' own.
        """
        failed = failure(jobs)
        if failed is not None:
            return failed
        made = [(job, image) for job in jobs for image in job.images]
        pictures: list[str] = []
        if self.parameters.get("send_images", True):
            if files is None:
                stored = (read_image(self.here, image) for _, image in made)
                files = [data for data in stored if data is not None]
            pictures = [encode(data) for data in files]
            if not made:
                previews = (last_preview(self.here, job) for job in jobs)
                pictures = [preview for preview in previews if preview is not None]
        info = self._info(jobs, made)
        return self.ignored.sent_with(
            jsonify(images=pictures, parameters=self.parameters, info=json.dumps(info))
        )

    def _info(self, jobs: Sequence[Job], made: Sequence[tuple[Job, Image]]) -> dict[str, Any]:
        """The content of `info` (`Processed.js` in `modules/processing.py`), and ignored fields."""
        first, parameters = jobs[0], self.parameters
        settings = _settings(_request(first))
        if made:
            settings |= {"width": made[0][1].width, "height": made[0][1].height}
        seeds = [image.seed for _, image in made] or [settings["seed"]]
        given = parameters.get("subseed")
        subseeds = seeds if given is None else [int(given)] * len(seeds)
        return settings | {
            "prompt": parameters["prompt"],
            "all_prompts": [parameters["prompt"]] * len(seeds),
            "all_negative_prompts": [settings["negative_prompt"]] * len(seeds),
            "seed": seeds[0],
            "all_seeds": seeds,
            "subseed": subseeds[0],
            "all_subseeds": subseeds,
            "subseed_strength": 0,
            "batch_size": max(1, int(parameters.get("batch_size") or 1)),
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_hash": None,
            "sd_vae_name": None,
            "sd_vae_hash": None,
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "extra_generation_params": {},
            "index_of_first_image": 0,
            "infotexts": [metadata.parameters(_request(job), image.index) for job, image in made],
            "styles": [],
            "job_timestamp": job_timestamp(first),
            "is_using_inpainting_conditioning": False,
            "version": f"darkroom {darkroom.__version__}",
            "ignored": self.ignored.names,
            "notes": [note for job in jobs for note in job.notes],
        }


def failure(jobs: Sequence[Job]) -> Response | None:
    """The error of the first job that failed; None if none did."""
    for job in jobs:
        if job.error is not None and job.status is JobStatus.FAILED:
            problem: Problem = job.error.model_copy(update={"request_id": g.request_id})
            return errors.respond(problem)
    return None


def read_image(here: Context, image: Image) -> bytes | None:
    """A stored picture's bytes; None if it was deleted meanwhile."""
    try:
        return here.files.read(image.id)
    except FileNotFoundError:
        return None


def last_preview(here: Context, job: Job) -> str | None:
    """The newest preview of a job's first picture: base64 of a PNG; None if there is none yet."""
    found = here.store.last_preview(job.id)
    if found is None:
        return None
    with here.rendering:
        return encode(codec.transcode(found.webp, OutputFormat.PNG))


def encode(data: bytes) -> str:
    """Base64 text."""
    return base64.b64encode(data).decode()


def job_timestamp(job: Job) -> str:
    """When the job started, or was accepted, in A1111's format."""
    return (job.started_at or job.created_at).strftime("%Y%m%d%H%M%S")


def _request(job: Job) -> ResolvedRequest:
    """The job's request, typed."""
    return RESOLVED[job.task].model_validate(job.request)


def _settings(request: ResolvedRequest) -> dict[str, Any]:
    """The fields of `info` that come from the request; neutral values for an upscaling job."""
    if isinstance(request, Upscale):
        return {
            "negative_prompt": "",
            "seed": 0,
            "width": 0,
            "height": 0,
            "sampler_name": samplers.label(schedulers.NATIVE),
            "cfg_scale": 0.0,
            "steps": 0,
            "sd_model_name": "",
            "denoising_strength": None,
            "clip_skip": 1,
        }
    return {
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "sampler_name": samplers.label(request.scheduler),
        "cfg_scale": request.guidance_scale,
        "steps": request.num_inference_steps,
        "sd_model_name": request.model,
        "denoising_strength": request.strength if isinstance(request, Img2Img | Inpaint) else None,
        "clip_skip": request.clip_skip + 1,
    }
