"""What a handler returns when its answer takes time: the bridge goes on from there.

A handler that waited would hold a thread. Instead it returns one of these as the body of its
response, and the bridge waits on the event loop. Another WSGI server cannot serve them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, ParamSpec, Protocol, TypeVar

from flask import Flask, Response, copy_current_request_context, current_app, g

from darkroom.api.auth.access import known_caller
from darkroom.responses import Event

P = ParamSpec("P")
T = TypeVar("T")
Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Any], Any]

STRANGER = "darkroom.stranger"  # in an `Environ`: whether the caller is nobody who is known


class DeferredResponse:
    """The body of a response that is still to come."""

    def __iter__(self) -> Iterator[bytes]:
        raise RuntimeError("only darkroom.asgi.bridge can serve this answer")


@dataclass(frozen=True)
class PendingResponse(DeferredResponse):
    """An answer that is due when a job ends, or a deadline passes, or the caller leaves.

    Its functions are called in threads, one at a time.

    Attributes:
        job_id: of the job.
        deadline: on the monotonic clock, or None for as long as it takes.
        has_ended: whether the job has ended; called once its events are listened to.
        answer: makes the answer, whatever the job's status.
        abandon: called instead when the caller has left.
    """

    job_id: str
    deadline: float | None
    has_ended: Callable[[], bool]
    answer: WsgiApp
    abandon: Callable[[], None]


class EventEncoder(Protocol):
    """Translates events for another API, for one listener.

    Its methods are called in threads, one at a time.
    """

    def encode(self, events: Sequence[Event]) -> bytes:
        """The bytes for events that came together; each comes once, oldest first."""

    def encode_stop(self) -> bytes:
        """The bytes for a stream that ends before its job does: the server stops."""


@dataclass(frozen=True)
class EventStream(DeferredResponse):
    """An answer that goes on: events as they happen.

    Attributes:
        job_id: whose, or None for those of all jobs; a job's stream ends with the job.
        after: the id of the last event that the caller has.
        client: whose jobs' events the caller may see; None is everybody's.
        allowed: whether the caller may still listen; called in a thread, at each heartbeat.
        encoder: None sends the events as the log has them.
    """

    job_id: str | None
    after: int
    client: str | None
    allowed: Callable[[], bool] | None = None
    encoder: EventEncoder | None = None


class Application(Flask):
    """Flask, which processes a pending response when it is made, not before."""

    def process_response(self, response: Response) -> Response:
        if isinstance(response.response, PendingResponse):
            return response
        return super().process_response(response)

    def authorize_headers(self, environ: Environ) -> Response | None:
        """The answer to a request that needs no body, such as 401; None if the body is wanted.

        Notes in `environ` whether the caller is a stranger.
        """
        with self.request_context(environ):
            try:
                answer = self.preprocess_request()
                environ[STRANGER] = known_caller() is None
            except Exception as error:
                answer = self.handle_user_exception(error)
            return None if answer is None else self.process_response(self.make_response(answer))


def until_ended(
    job_id: str,
    wait_s: float | None,
    has_ended: Callable[[], bool],
    answer: Callable[[], Response],
    abandon: Callable[[], None],
) -> Response:
    """Answer the current request when a job has ended, or after `wait_s`; None has no limit.

    The functions are those of `PendingResponse`, and are called as if in this request. `answer`
    returns the response, or raises a problem.
    """
    deadline = None if wait_s is None else monotonic() + wait_s
    answers = _in_this_request(partial(_process, answer))
    return suspend(
        PendingResponse(
            job_id, deadline, _in_this_request(has_ended), answers, _in_this_request(abandon)
        )
    )


def suspend(body: DeferredResponse, **about: Any) -> Response:
    """A response that the bridge completes; `about` are arguments of the response."""
    return Response(body, direct_passthrough=True, **about)


def _in_this_request(function: Callable[P, T]) -> Callable[P, T]:
    """The function, to be called later in any thread, in this request's Flask context."""
    known = {name: g.get(name) for name in g}

    @copy_current_request_context
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in known.items():
            setattr(g, name, value)
        return function(*args, **kwargs)

    return called


def _process(answer: Callable[[], Response], environ: Environ, start_response: Any) -> Any:
    """Make and process an answer as Flask does that of a view. A WSGI application."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        response = app.make_response(answer())
    except Exception as error:
        response = app.make_response(app.handle_user_exception(error))
    return app.process_response(response)(environ, start_response)
