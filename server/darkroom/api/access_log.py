"""Access log and metrics of the web process."""

import platform
from collections.abc import Callable
from time import monotonic
from urllib.parse import quote

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

import darkroom
from darkroom.api.auth import origin

log = structlog.get_logger()

BEGAN = "darkroom.began"  # in the request's environ, which outlives the thread that made it
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
QUIET = ("system.", "static")  # endpoints that machines and pages ask for all the time
MAX_PATH_CHARS = 200


class WebMeters:
    """Metrics of the web process.

    Args:
        open_streams: returns how many event streams are open.

    Attributes:
        registry: holds all of them.
    """

    def __init__(self, open_streams: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="darkroom_web", registry=self.registry)
        build = Info("darkroom_build", "What runs here.", registry=self.registry)
        build.info({"version": darkroom.__version__, "python": platform.python_version()})
        self._requests = Counter(
            "darkroom_http_requests",
            "Answers. A route is a pattern; what none fits is 'unknown'.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "darkroom_http_request_seconds",
            "From a request's arrival to its answer's beginning; who waits for a job waits in it.",
            ("route", "method"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._webhooks = Counter(
            "darkroom_webhook_attempts",
            "Attempts to deliver a webhook, by what came of them.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in ("delivered", "postponed", "given_up"):
            self._webhooks.labels(outcome)
        streams = Gauge("darkroom_event_streams", "Open event streams.", registry=self.registry)
        streams.set_function(open_streams)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"  # anybody can make one up
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def webhook_attempted(self, outcome: str) -> None:
        self._webhooks.labels(outcome).inc()


def install(app: Flask, meters: WebMeters) -> None:
    """Log and count every answer.

    A line never holds what a request says: no query, headers or fields. Its request id is also in
    whatever else was logged on its behalf, in the worker too.
    """

    @app.before_request
    def begin() -> None:
        request.environ[BEGAN] = monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        seconds = monotonic() - request.environ.get(BEGAN, monotonic())
        route = "unknown" if request.url_rule is None else request.url_rule.rule
        meters.answered(route, request.method, response.status_code, seconds)
        quiet = (request.endpoint or "").startswith(QUIET) and response.status_code != 500
        (log.debug if quiet else log.info)(
            "request",
            method=request.method,
            path=quote(request.path)[:MAX_PATH_CHARS],
            route=route,
            status=response.status_code,
            seconds=round(seconds, 4),
            request_id=g.get("request_id"),
            **_caller(),
            **_job(response),
        )
        return response


def _caller() -> dict[str, str]:
    """The caller if it is known, else its address."""
    who = g.get("caller")
    if who is None:
        return {"address": origin.canonical(request.remote_addr)}
    return {"client": who.client, "client_name": who.name}


def _job(response: Response) -> dict[str, str]:
    """Which job it is about: the one in the path, or the one that the answer leads to."""
    named = (request.view_args or {}).get("job_id")
    if named is None:
        _, slash, named = response.headers.get("Location", "").partition("/jobs/")
        return {"job_id": named} if slash and named else {}
    return {"job_id": str(named)}
