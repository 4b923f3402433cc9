"""What a request is answered when its pictures are there, in the words of A1111."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, g, jsonify

import darkroom
from darkroom.api import errors
from darkroom.api.context import context
from darkroom.catalog import schedulers
from darkroom.compat.a1111 import samplers
from darkroom.compat.a1111.previewing import preview
from darkroom.compat.ignored import Ignored
from darkroom.images import metadata
from darkroom.requests import ResolvedRequest, Task
from darkroom.responses import Image, Job, JobStatus, Problem

# What a job that only makes a picture larger does not say.
NOTHING_DRAWN: dict[str, Any] = {
    "model": "",
    "prompt": "",
    "negative_prompt": "",
    "scheduler": schedulers.NATIVE,
    "width": 0,
    "height": 0,
    "num_inference_steps": 0,
    "guidance_scale": 0,
    "num_images": 1,
    "seed": 0,
}
TIMESTAMP = "%Y%m%d%H%M%S"


def job_timestamp(job: Job) -> str:
    return (job.started_at or job.created_at).strftime(TIMESTAMP)


def failure(jobs: Sequence[Job]) -> Response | None:
    """The problem of the first job that failed; None if none did."""
    for job in jobs:
        if job.error is not None and job.status is JobStatus.FAILED:
            problem: Problem = job.error.model_copy(update={"request_id": g.request_id})
            return errors.respond(problem)
    return None


def send(
    jobs: Sequence[Job],
    parameters: Mapping[str, Any],
    ignored: Ignored,
    replaced: Sequence[bytes] | None = None,
) -> Response:
    """Answer with the pictures of ended jobs.

    An interrupted job has those that were done. If that is none, what it looked like last is
    shown, as A1111 shows a picture that was not finished.

    Args:
        jobs: at least one, in order.
        parameters: what was asked for, with defaults filled in.
        ignored: of what was asked for.
        replaced: files to answer with instead of the jobs' own.
    """
    failed = failure(jobs)
    if failed is not None:
        return failed
    pictures: list[str] = []
    made: list[tuple[Job, Image]] = [(job, image) for job in jobs for image in job.images]
    if parameters.get("send_images", True):
        if replaced is not None:
            pictures = [_text(data) for data in replaced]
        else:
            pictures = [_text(data) for _, image in made if (data := file_of(image)) is not None]
        if not made:
            pictures = [shown for job in jobs if (shown := preview(job.id)) is not None]
    info = _info(jobs, made, parameters, ignored)
    answer = jsonify(images=pictures, parameters=parameters, info=json.dumps(info))
    answer.headers.update(ignored.headers)
    return answer


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file_of(image: Image) -> bytes | None:
    """A picture's bytes; None if somebody has deleted it in between."""
    try:
        return context().files.read(image.id)
    except FileNotFoundError:
        return None


def _info(
    jobs: Sequence[Job],
    made: Sequence[tuple[Job, Image]],
    parameters: Mapping[str, Any],
    ignored: Ignored,
) -> dict[str, Any]:
    """What `info` holds: `Processed.js` in `modules/processing.py`, and what was ignored."""
    first = jobs[0]
    request = _request(first)
    seeds = [image.seed for _, image in made] or [request.seed]
    given = parameters.get("subseed")
    subseeds = seeds if given is None else [int(given)] * len(seeds)
    texts = [metadata.parameters(_request(job), image.index) for job, image in made]
    size = made[0][1] if made else request
    return {
        "prompt": parameters["prompt"],
        "all_prompts": [parameters["prompt"]] * len(seeds),
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * len(seeds),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": 0,
        "width": size.width,
        "height": size.height,
        "sampler_name": samplers.label(request.scheduler),
        "cfg_scale": request.guidance_scale,
        "steps": request.num_inference_steps,
        "batch_size": max(1, int(parameters.get("batch_size") or 1)),
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": request.model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": job_timestamp(first),
        "clip_skip": request.clip_skip + 1,
        "is_using_inpainting_conditioning": False,
        "version": f"darkroom {darkroom.__version__}",
        "ignored": ignored.names,
        "notes": [note for job in jobs for note in job.notes],
    }


def _request(job: Job) -> ResolvedRequest:
    unsaid = NOTHING_DRAWN if job.task is Task.UPSCALE else {}
    return ResolvedRequest.model_validate({**unsaid, **job.request, "task": job.task})
