"""How a request becomes a job on disk, whichever API it came by."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from flask import Response, g, request

from darkroom.api import http
from darkroom.api.auth import access
from darkroom.api.context import context
from darkroom.api.errors import ProblemError
from darkroom.api.parsing.prepare import PreparedRequest
from darkroom.asgi.wait import until_ended
from darkroom.queue.store import IdempotencyConflictError, QueueFullError
from darkroom.responses import Job
from darkroom.storage.records import NewJob


def check_room(key: str | None = None) -> None:
    """Refuse a job that there is no room for, before a picture is decoded for nothing.

    Args:
        key: an `Idempotency-Key`; one that was used before needs no room.

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


def accept(
    taken: PreparedRequest, key: str | None = None, old_fingerprint: str | None = None
) -> str:
    """Put a job of the current request's caller in the queue; its id. It is on disk by then.

    Args:
        taken: what is asked for.
        key: an `Idempotency-Key`.
        old_fingerprint: see `NewJob`.

    Raises:
        ProblemError: 422 or 429.
    """
    return _accept(taken, key, old_fingerprint, collapses=False)[0]


@contextlib.contextmanager
def all_or_none() -> Iterator[Callable[[PreparedRequest], str]]:
    """Put the jobs of one request in the queue, and take them back if the request is refused.

    An unfinished job of the caller that was asked for in the same words will do, for clients that
    send again what they have no answer to; it is not taken back, since somebody waits for it.

    Yields:
        What accepts one of them and gives its id. It raises ProblemError: 422 or 429.
    """
    placed: list[str] = []

    def take(taken: PreparedRequest) -> str:
        job_id, fresh = _accept(taken, collapses=True)
        if fresh:
            placed.append(job_id)
        return job_id

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
) -> tuple[str, bool]:
    """The job's id, and whether there was none before."""
    here = context()
    uploads = taken.store()
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
        job_id, fresh = here.store.accept(new)
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
        if not fresh:  # refused, failed, or a repeat: nobody refers to these files
            for upload in uploads:
                here.files.delete(upload.id)
    here.ring_worker()
    return job_id, fresh


def job(job_id: str) -> Job:
    """One that the current caller may see, as it stands now."""
    found = context().store.job(job_id, access.caller().sees)
    assert found is not None
    return found


def when_ended(
    job_ids: Sequence[str],
    then: Callable[[Sequence[Job]], Response],
    each: Callable[[Job], Response | None] = lambda _: None,
) -> Response:
    """Answer the current request when all of these have ended, without a thread that waits.

    Whoever goes away in between finds the pictures with their other jobs.

    Args:
        job_ids: of the caller's jobs.
        then: is given them, and answers; that may be to wait for more.
        each: is given each as it stands at its end, and may answer without waiting for the rest.
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
