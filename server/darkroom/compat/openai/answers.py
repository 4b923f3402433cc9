"""What is answered when the pictures are there."""

import base64
from collections.abc import Sequence
from typing import Any

from flask import Response, g, jsonify

from darkroom.api import submit
from darkroom.api.errors import respond
from darkroom.api.routes.images import read_file
from darkroom.api.routes.signed import signed_address
from darkroom.compat.openai.problems import failure
from darkroom.compat.openai.translation import Asked
from darkroom.responses import Image, Job

# A job that has failed would fail again, and one that was cancelled shall not come back: the SDK
# tries both once more unless it is told otherwise (openai/_base_client.py, `_should_retry`).
FINAL = {"X-Should-Retry": "false"}

# Nothing is metered here; the SDK's types want numbers.
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


def when_done(job_ids: Sequence[str], asked: Asked) -> Response:
    """Answer with the pictures of all jobs once the last has ended, or the first has failed."""
    return submit.when_ended(job_ids, lambda jobs: _pictures(jobs, asked), _refusal)


def _refusal(job: Job) -> Response | None:
    problem = failure(job)
    if problem is None:
        return None
    return respond(
        problem.model_copy(update={"request_id": g.request_id}),
        FINAL if job.status.terminal else {"Retry-After": "5"},
    )


def _pictures(jobs: Sequence[Job], asked: Asked) -> Response:
    show = _address if asked.options.wants_addresses else _content
    data = [{**show(image), "seed": image.seed} for job in jobs for image in job.images]
    answer = {"created": seconds(jobs[0]), "data": data, **about(jobs[0]), "usage": USAGE}
    response = jsonify(answer)
    response.headers.extend(asked.ignored.headers)
    return response


def about(job: Job) -> dict[str, Any]:
    """What is the same of all pictures of a job."""
    asked = job.request
    return {
        "background": "opaque",
        "output_format": asked["output_format"],
        "quality": "auto",
        "size": f"{asked['width']}x{asked['height']}",
    }


def seconds(job: Job) -> int:
    """When it was asked for, since the epoch."""
    return int(job.created_at.timestamp())


def _address(image: Image) -> dict[str, str]:
    return {"url": signed_address(image.id)}


def _content(image: Image) -> dict[str, str]:
    return {"b64_json": base64.b64encode(read_file(image.id)).decode()}
