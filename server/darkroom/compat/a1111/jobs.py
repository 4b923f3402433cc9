"""The jobs of one request, and the answer with their pictures in base64."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from flask import Response, g, jsonify

import darkroom
from darkroom.api import errors
from darkroom.api.context import context
from darkroom.api.parse import FILE_PART, validate
from darkroom.api.prepare import FILE_FIELDS
from darkroom.api.routes import submit
from darkroom.catalog import schedulers
from darkroom.catalog.hashes import AUTO_V2
from darkroom.compat.a1111 import samplers
from darkroom.compat.ignored import Ignored
from darkroom.images import codec, metadata
from darkroom.requests import MAX_IMAGES_PER_JOB, MAX_SEED, REQUESTS, RESOLVED, OutputFormat, Task
from darkroom.responses import Image, Job, JobStatus, Problem

API = "a1111"  # how the queue knows jobs of these routes
ONLY_IMG2IMG = ("strength", "latent_resize")  # which edits do not have

Size = tuple[int, int]  # width and height in pixels
Then = Callable[[Sequence[Job]], Response]  # answers with ended jobs, or waits for more


@dataclass(frozen=True)
class ChildJob:
    """A job to put in the queue: fields and files of our own request, without a seed.

    Attributes:
        first: index of its first picture among the request's, which decides its seed.
        source: jobs of the same number use the same files, which are stored once.
    """

    task: Task
    values: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    first: int = 0
    source: int = 0


def split(job: ChildJob, count: int) -> list[ChildJob]:
    """Jobs that together make so many pictures."""
    jobs = []
    for first in range(0, count, MAX_IMAGES_PER_JOB):
        values = {**job.values, "num_images": min(MAX_IMAGES_PER_JOB, count - first)}
        jobs.append(replace(job, values=values, first=first))
    return jobs


def run(
    child_jobs: Sequence[ChildJob], seed: int | None, digest: str, stage: str, then: Then
) -> Response:
    """Put jobs of the current request in the queue, all or none, and answer when they have ended.

    Args:
        child_jobs: in order.
        seed: of the request's first picture; None is a random one.
        digest: of the request. A repeat finds the unfinished jobs by it, see `all_or_none`.
        stage: distinguishes several calls for one request.
        then: called with the jobs. If one failed, its error is the answer instead.

    Raises:
        ProblemError: of the first job that is refused.
    """
    g.api = API
    placed: list[str] = []
    stored: dict[int, dict[str, str]] = {}
    with submit.all_or_none() as accept:
        for index, child in enumerate(map(_possible, child_jobs)):
            values = {**child.values, **stored.get(child.source, {})}
            files = {} if child.source in stored else child.files
            if seed is not None:
                values["seed"] = (seed + child.first) % (MAX_SEED + 1)
            alone = (name for name in files if "/" not in name)
            fields = {**values, **dict.fromkeys(alone, FILE_PART)}
            asked = validate(REQUESTS[child.task], fields)
            fingerprint = sha256(f"{digest} {(stage, index, seed)}".encode()).hexdigest()
            job = accept(submit.prepare(asked, files, fingerprint))
            placed.append(job.id)
            if len(child_jobs) > 1:
                made = job.request
                stored[child.source] = {name: made[name] for name in FILE_FIELDS if name in made}
                if seed is None and "seed" in made:
                    seed = (made["seed"] - child.first) % (MAX_SEED + 1)

    def ended(jobs: Sequence[Job]) -> Response:
        for job in jobs:
            if job.error is not None and job.status is JobStatus.FAILED:
                return errors.respond(job.error)
            if not job.status.terminal:
                return submit.stopping(job)
        return then(jobs)

    return submit.when_ended(placed, ended)


def _possible(child: ChildJob) -> ChildJob:
    """The same job, or where its model edits but does no img2img, an edit, without strength."""
    if child.task is not Task.IMG2IMG or not edits_only(child.values["model"]):
        return child
    kept = {name: child.values[name] for name in child.values if name not in ONLY_IMG2IMG}
    files = {"references/0": child.files["image"]}
    return replace(child, task=Task.EDIT, values={**kept, "references": [FILE_PART]}, files=files)


def edits_only(model: str) -> bool:
    """Whether a model changes pictures as the prompt says, and in no other way."""
    tasks = context().catalog.find(model).info.tasks
    return Task.EDIT in tasks and Task.IMG2IMG not in tasks


@dataclass(frozen=True)
class Answer:
    """The answer to a txt2img or img2img request; `parameters` are its fields, with defaults."""

    parameters: Mapping[str, Any]
    ignored: Ignored

    def send(self, jobs: Sequence[Job], files: Sequence[bytes] | None = None) -> Response:
        """Answer with the pictures of ended jobs, or with `files` instead.

        An interrupted job has the pictures that were finished. If there is none at all, the jobs'
        last previews are sent, as A1111 sends an unfinished picture.
        """
        made = [(job, image) for job in jobs for image in job.images]
        pictures: list[str | None] = []
        if self.parameters["send_images"] and made:
            stored = (read_image(image) for _, image in made) if files is None else files
            pictures = [encode(data) for data in stored if data is not None]
        elif self.parameters["send_images"]:
            pictures = [last_preview(job) for job in jobs]
        return self.ignored.sent_with(
            jsonify(
                images=[picture for picture in pictures if picture is not None],
                parameters=self.parameters,
                info=json.dumps(self._info(jobs, made)),
            )
        )

    def _info(self, jobs: Sequence[Job], made: Sequence[tuple[Job, Image]]) -> dict[str, Any]:
        """The content of `info` (`Processed.js` in `modules/processing.py`), and ignored fields."""
        first, parameters = jobs[0], self.parameters
        request = first.request  # a job of an upscaler lacks most of the fields
        negative_prompt = request.get("negative_prompt", "")
        seeds = [image.seed for _, image in made] or [request.get("seed", 0)]
        subseed = parameters["subseed"]
        subseeds = seeds if subseed is None else [subseed] * len(seeds)
        infotexts = [
            metadata.parameters(RESOLVED[job.task].model_validate(job.request), image.index)
            for job, image in made
        ]
        return {
            "negative_prompt": negative_prompt,
            "seed": seeds[0],
            "width": made[0][1].width if made else request.get("width", 0),
            "height": made[0][1].height if made else request.get("height", 0),
            "sampler_name": samplers.label(request.get("scheduler", schedulers.NATIVE)),
            "cfg_scale": request.get("guidance_scale", 0.0),
            "steps": request.get("num_inference_steps", 0),
            "sd_model_name": request.get("model", ""),
            "denoising_strength": request.get("strength"),
            "clip_skip": request.get("clip_skip", 0) + 1,
            "prompt": parameters["prompt"],
            "all_prompts": [parameters["prompt"]] * len(seeds),
            "all_negative_prompts": [negative_prompt] * len(seeds),
            "all_seeds": seeds,
            "subseed": subseeds[0],
            "all_subseeds": subseeds,
            "subseed_strength": 0,
            "batch_size": max(1, parameters["batch_size"]),
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_hash": (request.get("model_hash") or "")[:AUTO_V2] or None,
            "sd_vae_name": None,
            "sd_vae_hash": None,
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "extra_generation_params": {},
            "index_of_first_image": 0,
            "infotexts": infotexts,
            "styles": [],
            "job_timestamp": job_timestamp(first),
            "is_using_inpainting_conditioning": False,
            "version": f"darkroom {darkroom.__version__}",
            "ignored": self.ignored.names,
            "notes": [note for job in jobs for note in job.notes],
        }


def as_error(problem: Problem) -> dict[str, Any]:
    """A problem as A1111 answers an exception (modules/api/api.py, `handle_exception`)."""
    return {
        "error": problem.title,
        "detail": problem.detail,
        "body": "",
        "errors": "; ".join(f"{error.pointer}: {error.detail}" for error in problem.errors),
        "request_id": problem.request_id,
    }


def read_image(image: Image) -> bytes | None:
    """A stored picture's bytes; None if it was deleted meanwhile."""
    try:
        return context().files.read(image.id)
    except FileNotFoundError:
        return None


def last_preview(job: Job) -> str | None:
    """The newest preview of a job's first picture: base64 of a PNG; None if there is none yet."""
    here = context()
    found = here.store.last_preview(job.id)
    if found is None:
        return None
    with here.rendering:
        return encode(codec.transcode(found.webp, OutputFormat.PNG))


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def job_timestamp(job: Job) -> str:
    """When the job started, or was accepted, in A1111's format."""
    return (job.started_at or job.created_at).strftime("%Y%m%d%H%M%S")
