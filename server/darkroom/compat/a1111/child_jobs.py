"""One request there may be several jobs here: more pictures than a job has, or a second pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from darkroom.api import submit
from darkroom.api.errors import field_errors, invalid
from darkroom.api.parsing import prepare
from darkroom.api.parsing.prepare import PreparedRequest
from darkroom.compat.a1111.bodies import Body
from darkroom.requests import ALL_REQUEST_TYPES, MAX_IMAGES_PER_JOB, MAX_SEED, Task

PICTURES = prepare.FILE_FIELDS


@dataclass(frozen=True)
class ChildJob:
    """A job to be.

    Attributes:
        task: what is to be done.
        values: fields of our own request, without a seed.
        files: pictures that came along, by our fields' names.
        first: which of the request's pictures its first one is, for its seed.
        source: jobs of the same number work from the same pictures, which are stored once.
    """

    task: Task
    values: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    first: int = 0
    source: int = 0


def split(count: int) -> list[tuple[int, int]]:
    """So many pictures as jobs: the first one's number, and how many."""
    starts = range(0, count, MAX_IMAGES_PER_JOB)
    return [(start, min(MAX_IMAGES_PER_JOB, count - start)) for start in starts]


def place(
    child_jobs: Sequence[ChildJob], seed: int | None, asked: Body, stage: str
) -> tuple[str, ...]:
    """Put jobs in the queue, the current caller's; their ids.

    Args:
        child_jobs: in child.
        seed: of the request's first picture; None is a random one.
        asked: what was sent; the same sent again while a job is unfinished means that job.
        stage: tells several calls for one request apart.

    Raises:
        ProblemError: of the first one that is refused; none of them is done then.
    """
    placed: list[str] = []
    stored: dict[int, dict[str, str]] = {}
    with submit.all_or_none() as accept:
        for index, child in enumerate(child_jobs):
            values = {**child.values, **stored.get(child.source, {})}
            files = {} if child.source in stored else child.files
            if seed is not None:
                values["seed"] = (seed + child.first) % (MAX_SEED + 1)
            job_id = accept(_resolve(child.task, values, files, asked.part(stage, index)))
            placed.append(job_id)
            if len(child_jobs) > 1:
                made = submit.job(job_id).request
                stored[child.source] = {name: made[name] for name in PICTURES if name in made}
                if seed is None and "seed" in made:
                    seed = (made["seed"] - child.first) % (MAX_SEED + 1)
    return tuple(placed)


def _resolve(
    task: Task, values: Mapping[str, Any], files: Mapping[str, bytes], fingerprint: str
) -> PreparedRequest:
    model = ALL_REQUEST_TYPES[task]
    try:
        asked = model.model_validate({**values, **dict.fromkeys(files, "file part")})
    except ValidationError as error:
        raise invalid(field_errors(error, model.model_fields)) from None
    return prepare.resolve(task, asked, files, fingerprint)
