"""From prepared requests to jobs in the queue, and waiting for their end; for every API."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from flask import Response, g, request

from darkroom.api import http
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.prepare import PreparedRequest
from darkroom.asgi.wait import until_ended
from darkroom.images.decoder import Decoded
from darkroom.queue.transitions import IdempotencyConflictError, QueueFullError
from darkroom.requests import AnyRequest
from darkroom.responses import Job
from darkroom.storage.records import NewJob


def check_room(key: str | None = None) -> None:
    """Check that the queue and the disk have room, before pictures are decoded.

    Args:
        key: an `Idempotency-Key`. If it was used before, no room is needed.

    Raises:
        ProblemError: 429 or 507.
    """
    here = context()
    free = here.files.free_bytes()
    if free < here.settings.queue.min_free_bytes:
        raise ProblemError(
            507, "disk-full", "The disk is full", f"only {free} bytes are left; nothing is accepted"
        )
    try:
        here.store.check_room(access.caller().client, key)
    except QueueFullError as error:
        raise _full(error) from None


def prepare(
    asked: AnyRequest, files: Mapping[str, bytes | Decoded], fingerprint: str
) -> PreparedRequest:
    """Prepare a request of the current caller; see `Preparer.prepare`.

    Raises:
        ProblemError: 413, 422 or 503.
    """
    sees, accepted = access.caller().sees, http.accepted_format()
    return context().preparer.prepare(asked, files, fingerprint, sees, accepted)


def accept(
    taken: PreparedRequest, key: str | None = None, old_fingerprint: str | None = None
) -> Job:
    """Put a job of the current caller in the queue. It is on disk when this returns.

    Args:
        taken: the request.
        key: an `Idempotency-Key`.
        old_fingerprint: see `NewJob`.

    Raises:
        ProblemError: 422 or 429.
    """
    return _accept(taken, key, old_fingerprint, collapses=False)[0]


@contextlib.contextmanager
def all_or_none() -> Iterator[Callable[[PreparedRequest], Job]]:
    """Put all jobs of one request in the queue, or cancel them again if one is refused.

    An unfinished job of the caller with the same fingerprint is used instead of a new one, for
    clients that repeat unanswered requests. It is never cancelled, since a request waits for it.

    Yields:
        A function that accepts a job and returns it. It raises ProblemError: 422 or 429.
    """
    placed: list[str] = []

    def take(taken: PreparedRequest) -> Job:
        accepted, fresh = _accept(taken, collapses=True)
        if fresh:
            placed.append(accepted.id)
        return accepted

    try:
        yield take
    except ProblemError:
        for job_id in placed:
            context().store.cancel(job_id, access.caller().client)
        context().ring_worker()
        raise


def _accept(
    taken: PreparedRequest,
    key: str | None = None,
    old_fingerprint: str | None = None,
    *,
    collapses: bool,
) -> tuple[Job, bool]:
    """The job, and whether it is new."""
    here = context()
    uploads = taken.store(here.files)
    who = access.caller()
    new = NewJob(
        who.client,
        who.name,
        taken.request,
        taken.workload,
        uploads,
        taken.fingerprint,
        key,
        urgency=http.urgency(request.headers.get("Priority", "")),
        request_id=g.request_id,
        collapses=collapses,
        webhook=taken.webhook,
        old_fingerprint=old_fingerprint,
    )
    fresh = False
    try:
        accepted, fresh = here.store.accept(new)
    except IdempotencyConflictError:
        raise ProblemError(
            422,
            "idempotency",
            "Idempotency-Key used before",
            "this key belongs to a different request; use a new one for a new request",
        ) from None
    except QueueFullError as error:
        raise _full(error) from None
    finally:
        if not fresh:  # refused, failed, or a repeat: no job refers to these files
            for upload in uploads:
                here.files.delete(upload.id)
    here.ring_worker()
    return accepted, fresh


def job(job_id: str) -> Job:
    """A job of the current caller, in its current state."""
    found = context().store.job(job_id, access.caller().sees)
    assert found is not None
    return found


def when_ended(
    job_ids: Sequence[str],
    then: Callable[[Sequence[Job]], Response],
    each: Callable[[Job], Response | None] = lambda _: None,
) -> Response:
    """Answer the current request when all jobs have ended. No thread waits for that.

    The jobs go on if the caller disconnects.

    Args:
        job_ids: jobs of the caller.
        then: answers with the ended jobs; it may wait for others in turn.
        each: called with each job as it ends; may answer without waiting for the rest.
    """

    def wait(left: Sequence[str]) -> Response:
        if not left:
            return then([job(job_id) for job_id in job_ids])
        first, *rest = left
        return until_ended(
            first,
            None,
            has_ended=lambda: context().store.has_ended(first),
            answer=lambda: each(job(first)) or wait(rest),
            abandon=lambda: None,  # the jobs go on
        )

    return wait(job_ids)


def _full(error: QueueFullError) -> ProblemError:
    if error.whose == "client":
        detail = f"{error.pending} of your jobs wait or run, and one client may not have more"
    else:
        detail = f"{error.pending} jobs of all clients wait or run, and there may not be more"
    return ProblemError(
        429,
        "queue-full",
        "The queue is full",
        f"{detail}; ask again in {error.retry_after_s} s",
        headers={"Retry-After": str(error.retry_after_s)},
    )
