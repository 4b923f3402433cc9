"""The OpenAPI 3.1 document, built from the application's routes.

A handler is registered with `route`, which attaches an `Operation` to it. `write` goes through the
routes of an application and writes down those that have one.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

import darkroom
from darkroom.api.auth.access import COOKIE
from darkroom.api.errors import CONTENT_TYPE
from darkroom.responses import Job, JobPage, Problem

Handler = TypeVar("Handler", bound=Callable[..., Response])
Model = type[BaseModel]
Json = dict[str, Any]

JSON, FORM = "application/json", "multipart/form-data"

SCHEMAS, RESPONSES = "#/components/schemas/", "#/components/responses/"
SECURITY_SCHEMES: dict[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "cookie": {"type": "apiKey", "name": COOKIE, "in": "cookie"},
}

HASH = "[0-9a-f]{24}"
PATTERNS = {
    "job_id": f"^{HASH}$",
    "image_id": f"^(up{HASH}|{HASH}-[0-9])$",
    "token_id": "^[0-9a-f]{12}$",
    "device_id": "^[0-9a-f]{12}$",
    "pull_id": f"^{HASH}$",
    "name": "^[^/].*$",
}

EVERYWHERE = (401, 403, 422, 429, 500, 503)  # problems of every route
OF_BODIES = (400, 413, 415)  # and of those that read one
WHY = {
    400: "The request cannot be read: not JSON, not a form, or a malformed header.",
    401: "A token is missing, wrong or revoked.",
    403: "This caller may not do this, or not from this origin.",
    404: "Not found, or it belongs to somebody else.",
    406: "`Accept` allows none of the available formats.",
    409: "It conflicts with the current state.",
    410: "It existed once and is gone.",
    413: "It is larger than allowed.",
    415: "This route does not read this content type.",
    422: "The request can be read but is not valid; `errors` names each field.",
    429: "Too many requests or jobs; `Retry-After` says when to retry.",
    500: "The server failed, or the job did.",
    502: "A hub does not answer.",
    503: "Not available now; `Retry-After` says when to retry.",
    507: "The disk is full.",
}
WAIT = (429, 503)  # with Retry-After
WRITTEN = "darkroom.openapi"

REQUEST_ID: Json = {
    "description": "The id of this request in the server's log.",
    "schema": {"type": "string"},
    "required": True,
}
RETRY_AFTER: Json = {
    "description": "Seconds until a retry makes sense.",
    "schema": {"type": "integer", "minimum": 0},
}
LOCATION: Json = {
    "description": "The URL of the job.",
    "schema": {"type": "string", "format": "uri-reference"},
}


def header(name: str, description: str, **schema: Any) -> Json:
    """A request header that a handler reads by itself."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string", **schema},
        "description": description,
    }


GIVEN_ID = header(
    "X-Request-Id",
    "An id for this request: 8 to 128 letters, digits, `-` and `_`. Others are ignored.",
)
IF_NONE_MATCH = header("If-None-Match", "An earlier `ETag`; 304 if it is still current.")


def _link(operation: str, parameter: str, source: str) -> Json:
    """A link from a response to an operation whose parameter is in the response's body."""
    return {"operationId": operation, "parameters": {parameter: f"$response.body#{source}"}}


LINKS: dict[Model | None, Json] = {
    Job: {
        "show": _link("show_job", "job_id", "/id"),
        "cancel": _link("cancel_job", "job_id", "/id"),
        "watch": _link("job_events", "job_id", "/id"),
        "timeline": _link("show_timeline", "job_id", "/id"),
        "image": _link("show_image", "image_id", "/images/0/id"),
    },
    JobPage: {
        "newest": _link("show_job", "job_id", "/jobs/0/id"),
        "next": _link("list_jobs", "cursor", "/next_cursor"),
    },
}


@dataclass(frozen=True)
class Operation:
    """The documentation of one route. Its tag is the name of the route's blueprint.

    Attributes:
        answers: a model by status; None has no JSON body. 400 and up are problems.
        sends: content types of 200, beside JSON.
        takes: parameters beside the fields of `query`.
        public: it needs no token.
    """

    answers: Mapping[int, Model | None]
    query: Model | None = None
    json: Model | None = None
    form: Model | None = None
    sends: tuple[str, ...] = ()
    takes: tuple[Json, ...] = ()
    public: bool = False


def route(
    blueprint: Blueprint, method: str, rule: str, operation: Operation
) -> Callable[[Handler], Handler]:
    """Register a handler and attach its documentation; the handler's docstring is part of it."""

    def register(handler: Handler) -> Handler:
        blueprint.add_url_rule(rule, view_func=handler, methods=[method])
        handler.operation = operation  # type: ignore[attr-defined]
        return handler

    return register


def document(app: Flask) -> Json:
    """The document of an application, which is written once."""
    known: Json | None = app.extensions.get(WRITTEN)
    if known is None:
        known = app.extensions[WRITTEN] = write(app)
    return known


def write(app: Flask) -> Json:
    """Write the document of an application's routes, as JSON."""
    views: list[tuple[Rule, Any]] = [
        (rule, view)
        for rule in app.url_map.iter_rules()
        if hasattr(view := app.view_functions[rule.endpoint], "operation")
    ]
    models: set[Model | None] = {Problem}
    for _, view in views:
        operation: Operation = view.operation
        models |= {operation.query, operation.json, operation.form, *operation.answers.values()}
    named = {model.__name__: model for model in models if model is not None}
    _, definitions = models_json_schema(
        [(named[name], "validation") for name in sorted(named)], ref_template=SCHEMAS + "{model}"
    )
    schemas = definitions["$defs"]
    paths: Json = {}
    tags: Json = {}
    problems: Json = {}
    for rule, view in views:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        tag = rule.endpoint.partition(".")[0]
        documented = _operation(path, tag, view, schemas)
        paths.setdefault(path, {})[method.lower()] = documented
        tags[tag] = {"name": tag}
        problems |= {
            status: _problem(int(status))
            for status, response in documented["responses"].items()
            if "$ref" in response
        }
    for name, schema in schemas.items():
        if name.endswith("Form"):
            for field in schema["properties"].values():
                _remove_null(field)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "description": "Generates images for every device on the local network.",
            "version": darkroom.__version__,
        },
        "tags": list(tags.values()),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": SECURITY_SCHEMES,
            "responses": dict(sorted(problems.items())),
        },
        "security": [{name: []} for name in SECURITY_SCHEMES],
    }


def _operation(path: str, tag: str, view: Any, schemas: Json) -> Json:
    """One operation of the document. Problems in its responses are references."""
    operation: Operation = view.operation
    summary, _, description = (inspect.getdoc(view) or "").partition("\n")
    in_path = re.findall(r"{(\w+)}", path)
    problems = {status for status in operation.answers if status >= 400} | set(EVERYWHERE)
    problems |= {404} if in_path else set()
    problems |= set(OF_BODIES) if operation.json is not None else set()
    responses = {
        str(status): _success(status, model, operation.sends if status == 200 else ())
        for status, model in operation.answers.items()
        if status < 400
    }
    responses |= {str(status): {"$ref": f"{RESPONSES}{status}"} for status in problems}
    documented: Json = {
        "summary": summary,
        "operationId": view.__name__,
        "description": description.strip(),
        "tags": [tag],
        "parameters": [
            *(_path_parameter(name) for name in in_path),
            *_query_parameters(operation.query, schemas),
            *operation.takes,
            GIVEN_ID,
        ],
        "responses": dict(sorted(responses.items())),
    }
    bodies = {JSON: operation.json, FORM: operation.form}
    content = {kind: {"schema": _ref(model)} for kind, model in bodies.items() if model is not None}
    if content:
        documented["requestBody"] = {"content": content, "required": True}
    if operation.public:
        documented["security"] = []
    return documented


def _ref(model: Model) -> Json:
    return {"$ref": SCHEMAS + model.__name__}


def _path_parameter(name: str) -> Json:
    schema = {"type": "string", "pattern": PATTERNS[name]}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": ""}


def _query_parameters(query: Model | None, schemas: Json) -> list[Json]:
    if query is None:
        return []
    found = schemas[query.__name__]
    parameters = []
    for name, field in found["properties"].items():
        schema = dict(field)
        _remove_null(schema)
        parameters.append(
            {
                "name": name,
                "in": "query",
                "schema": schema,
                "required": name in found.get("required", ()),
                "description": schema.get("description", ""),
            }
        )
    return parameters


def _success(status: int, model: Model | None, sends: Iterable[str]) -> Json:
    content: Json = {} if model is None else {JSON: {"schema": _ref(model)}}
    for kind in sends:
        content[kind] = {"schema": {"type": "string"} if kind.startswith("text/") else {}}
    headers = {"X-Request-Id": REQUEST_ID}
    if status == HTTPStatus.ACCEPTED:
        headers["Location"] = LOCATION
    response: Json = {"description": HTTPStatus(status).phrase, "headers": headers}
    if content:
        response["content"] = content
    if model in LINKS:
        response["links"] = LINKS[model]
    return response


def _problem(status: int) -> Json:
    headers = {"X-Request-Id": REQUEST_ID}
    if status in WAIT:
        headers["Retry-After"] = RETRY_AFTER
    content = {CONTENT_TYPE: {"schema": _ref(Problem)}}
    return {"description": WHY[status], "headers": headers, "content": content}


def _remove_null(schema: Json) -> None:
    """Remove null from an optional field: queries and forms cannot send it."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])
    if schema.get("default", ...) is None:
        del schema["default"]
