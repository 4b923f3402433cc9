"""HTTP beside bodies: queries, headers, JSON answers, and what every answer gets.

That is security headers, a line in the access log, and its place in the metrics.
"""

import platform
import re
from collections.abc import Callable
from time import monotonic
from typing import TypeVar
from urllib.parse import quote

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from pydantic import BaseModel, ValidationError

import darkroom
from darkroom.api.auth import origin
from darkroom.api.errors import field_errors, invalid, pointer
from darkroom.requests import OutputFormat
from darkroom.responses import FieldError
from darkroom.storage.records import DEFAULT_URGENCY

Query = TypeVar("Query", bound=BaseModel)

log = structlog.get_logger()

IMAGE_TYPES = tuple(output_format.content_type for output_format in OutputFormat)

# A dictionary of structured fields (RFC 9651, section 3.2).
_KEY = r"[a-z*][a-z0-9_\-.*]*"
_ITEM = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}"
    r"|%?\"(?:[ !#-\[\]-~]|\\[\"\\])*\"|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"
    r"|:[A-Za-z0-9+/=]*:|\?[01])"
)
_PARAMETERS = rf"(?:;[ ]*{_KEY}(?:={_ITEM})?)*"
_LIST = rf"\([ ]*(?:{_ITEM}{_PARAMETERS}(?:[ ]+{_ITEM}{_PARAMETERS})*)?[ ]*\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_ITEM}|{_LIST}))?{_PARAMETERS}")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_URGENCY = re.compile(r"[0-7]")
MAX_PRIORITY_CHARS = 256

BEGAN = "darkroom.began"  # in the request's environ, which outlives the thread that made it
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Routes that machines and pages ask for all the time.
QUIET = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/static")
MAX_PATH_CHARS = 200

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
}
STRICT_TRANSPORT = {"Strict-Transport-Security": f"max-age={365 * 24 * 3600}"}
UNCACHED = ("application/json", "application/problem+json", "text/html", "text/plain")


def send_model(
    model: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a model as JSON."""
    return Response(model.model_dump_json(), status, headers, content_type="application/json")


def read_query(model: type[Query]) -> Query:
    """The current request's query string, validated. ProblemError 422 names each wrong one."""
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise invalid(
            FieldError(pointer=pointer(name), detail="is given more than once") for name in twice
        )
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid(field_errors(error, model.model_fields)) from None


def accepted_format() -> OutputFormat | None:
    """The picture format that `Accept` prefers, by name or wildcard; None if it prefers JSON."""
    accept = request.accept_mimetypes
    if max(accept.quality(kind) for kind in IMAGE_TYPES) <= accept.quality("application/json"):
        return None
    best = accept.best_match(IMAGE_TYPES, default=IMAGE_TYPES[0])
    return OutputFormat(best.removeprefix("image/"))


def preferred_wait_s() -> float | None:
    """Seconds to wait for a job, by `Prefer` (RFC 7240); None is until it ends."""
    prefers = request.headers.get("Prefer", "")
    if re.search(r"(^|[,;\s])respond-async($|[,;\s])", prefers) and "wait" not in prefers:
        return 0
    found = re.search(r"(^|[,;\s])wait\s*=\s*\"?(\d+)", prefers)
    return float(found.group(2)) if found else None


def urgency(priority: str) -> int:
    """The urgency in a `Priority` header (RFC 9218): 0 to 7, 0 is the most urgent.

    One that is absent, malformed or out of range counts as the default (RFC 9218, section 4): a
    client that speaks a later version must not be refused.
    """
    text = priority.strip(" ")
    found = DEFAULT_URGENCY
    position = 0
    while position < len(text) <= MAX_PRIORITY_CHARS:
        member = _MEMBER.match(text, position)
        if member is None:
            return DEFAULT_URGENCY
        if member[1] == "u":
            usable = member[2] is not None and _URGENCY.fullmatch(member[2])
            found = int(member[2]) if usable else DEFAULT_URGENCY
        position = member.end()
        if position == len(text):
            return found
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            return DEFAULT_URGENCY
        position = comma.end()
    return DEFAULT_URGENCY


class WebMeters:
    """Metrics of the web process, in `registry`; `open_streams` returns how many are open."""

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


def install(app: Flask, meters: WebMeters, *, strict_transport: bool) -> None:
    """Log and count every answer, and restrict what browsers do with it.

    A log line never holds what a request says: no query, headers or fields. Its request id is also
    in whatever else was logged on its behalf, in the worker too. An answer's own headers come
    before the security headers; `strict_transport` makes browsers insist on TLS from now on.
    """
    extra = {**SECURITY_HEADERS, **(STRICT_TRANSPORT if strict_transport else {})}

    @app.before_request
    def begin() -> None:
        request.environ[BEGAN] = monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        for name, value in extra.items():
            response.headers.setdefault(name, value)
        if response.mimetype in UNCACHED:
            response.headers.setdefault("Cache-Control", "no-store")
        seconds = monotonic() - request.environ.get(BEGAN, monotonic())
        route = "unknown" if request.url_rule is None else request.url_rule.rule
        meters.answered(route, request.method, response.status_code, seconds)
        who = g.get("caller")
        if who is None:
            caller = {"address": origin.canonical(request.remote_addr)}
        else:
            caller = {"client": who.client, "client_name": who.name}
        quiet = route.startswith(QUIET) and response.status_code != 500
        (log.debug if quiet else log.info)(
            "request",
            method=request.method,
            path=quote(request.path)[:MAX_PATH_CHARS],
            route=route,
            status=response.status_code,
            seconds=round(seconds, 4),
            request_id=g.get("request_id"),
            **caller,
            **_job(response),
        )
        return response


def _job(response: Response) -> dict[str, str]:
    """Which job it is about: the one in the path, or the one that the answer leads to."""
    named = (request.view_args or {}).get("job_id")
    if named is None:
        _, slash, named = response.headers.get("Location", "").partition("/jobs/")
        return {"job_id": named} if slash and named else {}
    return {"job_id": str(named)}
