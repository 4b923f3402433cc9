"""Everything that a client raises on purpose."""

from typing import ClassVar

from darkroom_client.core.problem import FieldError, Problem
from darkroom_client.core.records import JobRecord


class DarkroomError(Exception):
    """The root of this library's errors."""


class ConnectionFailedError(DarkroomError):
    """The server was not reached, or the connection broke; retries, if any, are used up.

    The cause is the HTTP library's own error.
    """


class UnexpectedResponseError(DarkroomError):
    """Something answered, but not as a Darkroom server does."""


class APIError(DarkroomError):
    """The server refused.

    Attributes:
        problem: the refusal in full.
        retry_after_s: seconds after which the server wants to be asked again, if it said so.
    """

    statuses: ClassVar[frozenset[int]] = frozenset()

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        known = "" if problem.request_id is None else f" (request {problem.request_id})"
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}{known}")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.problem.status

    @property
    def type(self) -> str:
        """A URI that names the kind of problem."""
        return self.problem.type

    @property
    def title(self) -> str:
        """The same for every problem of this type."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What happened this time."""
        return self.problem.detail

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """One for each wrong field."""
        return self.problem.errors

    @property
    def request_id(self) -> str | None:
        """Under which the server's log has more."""
        return self.problem.request_id


class InvalidRequestError(APIError):
    """The request can never work as it is; `errors` names the fields."""

    statuses = frozenset({400, 413, 415, 422})


class PermissionDeniedError(APIError):
    """The token is missing or wrong, or this machine may not ask."""

    statuses = frozenset({401, 403})


class NotFoundError(APIError):
    """There is no such job or picture, or it belongs to another client."""

    statuses = frozenset({404})


class ConflictError(APIError):
    """It conflicts with how things stand: jobs need the model, or the name is taken."""

    statuses = frozenset({409})


class RateLimitedError(APIError):
    """The queue has no room for more of this client's jobs now."""

    statuses = frozenset({429})


class ServerError(APIError):
    """The server cannot do it now: a mistake of its own, a full disk, not ready."""

    statuses = frozenset(range(500, 600))


class JobFailedError(DarkroomError):
    """The job ended without its pictures.

    Attributes:
        job: as it ended.
        problem: why.
    """

    def __init__(self, job: JobRecord) -> None:
        self.job = job
        self.problem = job.error
        reason = "" if job.error is None else f": {job.error.title}: {job.error.detail}"
        super().__init__(f"job {job.id} failed{reason}")


class JobCancelledError(DarkroomError):
    """Somebody cancelled the job.

    Attributes:
        job: as it ended.
    """

    def __init__(self, job: JobRecord) -> None:
        self.job = job
        super().__init__(f"job {job.id} was cancelled")


class WaitTimeoutError(DarkroomError, TimeoutError):
    """The job has not ended in the time given to it. It goes on."""


def api_error(problem: Problem, retry_after_s: float | None = None) -> APIError:
    """The error for a problem, by its status."""
    for kind in APIError.__subclasses__():
        if problem.status in kind.statuses:
            return kind(problem, retry_after_s)
    return APIError(problem, retry_after_s)
