"""Errors as RFC 9457 problem details, for every failure of every route."""

import errno
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, current_app, g, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from darkroom.errors import DarkroomError, Message, Value, did_you_mean
from darkroom.responses import FieldError, Problem
from darkroom.storage.database import DatabaseUnavailableError
from darkroom.storage.files import FilesUnavailableError

log = structlog.get_logger()

# From a problem to the JSON of another API's error, by a prefix of the request's path.
ErrorShapes = Mapping[str, Callable[[Problem], dict[str, Any]]]

MAX_ERRORS = 64  # that an answer tells of one request
CONTENT_TYPE = "application/problem+json"
_SHAPES = "darkroom.error_shapes"

# What other tools call our fields.
ALIASES = {
    "steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "n": "num_images",
    "batch_size": "num_images",
    "num_images_per_prompt": "num_images",
    "denoising_strength": "strength",
    "denoise": "strength",
    "mask": "mask_image",
    "init_image": "image",
    "size": "width",
    "format": "output_format",
}

CANCELLED = Problem(
    type="urn:darkroom:problem:cancelled",
    title="The job was cancelled",
    status=409,
    detail="somebody cancelled this job while you waited for it",
)
STOPPING = Problem(
    type="urn:darkroom:problem:stopping",
    title="The server is stopping",
    status=503,
    detail="the server is stopping; your picture will be made when it is back",
)
FILES = Problem(
    type="urn:darkroom:problem:files",
    title="The pictures are not available",
    status=503,
    detail="the place of pictures cannot be used now; try again later",
)
STOPPED_S = 5  # in `Retry-After`: until a server that is restarted answers again


class ProblemError(DarkroomError):
    """Ends the request with a problem.

    `kind` is the last part of its type, which has one title; `detail` says what happened this time,
    and what to do. There is one of `errors` for each wrong field.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        errors: Iterable[FieldError] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            type=f"urn:darkroom:problem:{kind}",
            title=title,
            status=status,
            detail=detail,
            errors=tuple(errors),
            request_id=g.get("request_id"),
        )
        self.headers = headers


def invalid(errors: Iterable[FieldError], status: int = 422) -> ProblemError:
    """One or more fields are wrong."""
    found = tuple(errors)
    detail = "; ".join(f"{error.pointer.removeprefix('#/')}: {error.detail}" for error in found)
    return ProblemError(status, "validation", "The request is not valid", detail, found)


def invalid_field(name: str | None, detail: str, status: int = 422) -> ProblemError:
    """One field is wrong; with None, the request as a whole."""
    path = () if name is None else (name,)
    return invalid([FieldError(pointer=pointer(*path), detail=detail)], status)


def not_found(what: str) -> ProblemError:
    return ProblemError(404, "not-found", "Not found", f"there is no {what}")


def pointer(*path: str | int) -> str:
    """A JSON pointer as a URI fragment (RFC 6901, section 6)."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def field_errors(error: ValidationError, known: Iterable[str]) -> list[FieldError]:
    """Pydantic's findings in our words, with a hint for a misspelt one of the `known` fields."""
    found: list[FieldError] = []
    for item in error.errors(include_url=False, include_input=False):
        if len(found) == MAX_ERRORS:
            break
        path, code = item["loc"], item["type"]
        match code:
            case "extra_forbidden":
                detail = "there is no such field" + _hint(str(path[-1]), list(known))
            case "missing":
                detail = "is required"
            case "model_type":
                detail = "Input should be an object"
            case "list_type" | "tuple_type":
                detail = "Input should be a valid array"
            case "greater_than_equal" if path[-1:] == ("seed",):
                detail = f"{item['msg']}; leave it out for a random one"
            case _:
                detail = item["msg"]
        context = item.get("ctx", {})
        values = {name: each for name, each in context.items() if isinstance(each, Value)}
        said = Message(detail, code, values)
        found.append(FieldError(pointer=pointer(*path), detail=said))
    return found


def _hint(name: str, known: list[str]) -> str:
    meant = ALIASES.get(name)
    return f"; did you mean {meant}?" if meant in known else did_you_mean(name, known)


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """A problem of the current request, as the API that it is for writes errors."""
    problem = problem.model_copy(update={"request_id": g.request_id})
    shapes: ErrorShapes = current_app.extensions[_SHAPES]
    for prefix, shape in shapes.items():
        if request.path.startswith(prefix):
            body = json.dumps(shape(problem))
            return Response(body, problem.status, headers, content_type="application/json")
    body = problem.model_dump_json(exclude_none=True, exclude_defaults=True)
    return Response(body, problem.status, headers, content_type=CONTENT_TYPE)


def install(app: Flask, shapes: ErrorShapes | None = None) -> None:
    """Number the requests, and answer every exception with a problem."""
    app.extensions[_SHAPES] = shapes or {}

    @app.before_request
    def number_request() -> None:
        given = request.headers.get("X-Request-Id", "")
        plain = given.replace("-", "").replace("_", "")
        usable = 8 <= len(given) <= 128 and plain.isascii() and plain.isalnum()
        g.request_id = given if usable else secrets.token_hex(8)
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.teardown_request
    def forget_number(_error: BaseException | None) -> None:
        structlog.contextvars.unbind_contextvars("request_id")

    @app.after_request
    def show_number(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        return response

    @app.after_request
    def leave_out_what_was_not_wanted(response: Response) -> Response:
        """A failed precondition is a problem; werkzeug would send the whole file with it."""
        if response.status_code != HTTPStatus.PRECONDITION_FAILED:
            return response
        response.close()
        detail = "it is not what `If-Match` or `If-Unmodified-Since` say; ask for it without them"
        return on_problem(ProblemError(412, "precondition", "Another version", detail))

    @app.errorhandler(ProblemError)
    def on_problem(error: ProblemError) -> Response:
        return respond(error.problem, error.headers)

    @app.errorhandler(HTTPException)
    def on_http(error: HTTPException) -> Response:
        problem = Problem(
            type="about:blank",
            title=error.name,
            status=error.code or 500,
            detail=error.description or error.name,
        )
        kept = ("allow", "retry-after")
        headers = {name: text for name, text in error.get_headers() if name.lower() in kept}
        return respond(problem, headers)

    @app.errorhandler(Exception)
    def on_crash(error: Exception) -> Response:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (isinstance(error, DatabaseUnavailableError) and error.full):
            log.error("the disk is full")
            detail = "the server has no space left; nothing was accepted or changed"
            return on_problem(ProblemError(507, "disk-full", "The disk is full", detail))
        if isinstance(error, DatabaseUnavailableError):
            log.error("database not available", reason=str(error))
            return on_problem(
                ProblemError(
                    503,
                    "database",
                    "The database is not available",
                    f"{error}; nothing was accepted or changed, try again later",
                    headers={"Retry-After": "5"},
                )
            )
        if isinstance(error, FilesUnavailableError):
            log.error("files not available", reason=str(error))
            return respond(FILES, {"Retry-After": str(STOPPED_S)})
        log.exception("request failed", request_id=g.request_id, path=request.path)
        detail = "The server made a mistake. Its log has more, under this request id."
        return on_problem(ProblemError(500, "internal", "Internal error", detail))
