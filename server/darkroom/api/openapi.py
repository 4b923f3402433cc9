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
from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import models_json_schema

import darkroom
from darkroom.api.auth.access import COOKIE
from darkroom.api.errors import CONTENT_TYPE
from darkroom.api.operations import (
    EVERYWHERE,
    GIVEN_ID,
    LOCATION,
    PATTERNS,
    REQUEST_ID,
    RETRY_AFTER,
    WAIT,
    WHY,
    Json,
    Parameter,
    job_links,
    page_links,
)
from darkroom.requests import REQUESTS, ImageSource, Task
from darkroom.responses import Job, JobPage, Problem

Handler = TypeVar("Handler", bound=Callable[..., Response])
Model = type[BaseModel]

SCHEMAS, RESPONSES = "#/components/schemas/", "#/components/responses/"
SECURITY_SCHEMES: dict[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "cookie": {"type": "apiKey", "name": COOKIE, "in": "cookie"},
}
LINKS = {Job: job_links, JobPage: page_links}
JSON = "application/json"


@dataclass(frozen=True)
class Operation:
    """The documentation of one route.

    Attributes:
        answers: a model by status; None has no JSON body. 400 and up are problems.
        sends: content types by status, beside JSON.
        takes: parameters beside the fields of `query`.
        public: it needs no token.
    """

    id: str
    tag: str
    answers: Mapping[int, Model | None]
    query: Model | None
    json: Model | None
    form: Model | None
    sends: Mapping[int, tuple[str, ...]]
    takes: tuple[Parameter, ...]
    public: bool

    @property
    def models(self) -> list[Model]:
        """Every model that the document needs a schema of."""
        bodies = (self.query, self.json, self.form, *self.answers.values())
        return [model for model in bodies if model is not None]


def route(
    blueprint: Blueprint,
    method: str,
    rule: str,
    *,
    answers: Mapping[int, Model | None],
    tag: str,
    query: Model | None = None,
    json: Model | None = None,
    form: Model | None = None,
    sends: Mapping[int, tuple[str, ...]] | None = None,
    takes: tuple[Parameter, ...] = (),
    public: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a handler and attach its documentation. See `Operation` for the arguments."""

    def register(handler: Handler) -> Handler:
        blueprint.add_url_rule(rule, view_func=handler, methods=[method])
        handler.operation = Operation(  # type: ignore[attr-defined]
            handler.__name__, tag, answers, query, json, form, sends or {}, takes, public
        )
        return handler

    return register


def write(app: Flask) -> Json:
    """The document of an application's routes, as JSON."""
    operations: dict[tuple[str, str], tuple[Operation, Callable[..., Any]]] = {}
    for rule in app.url_map.iter_rules():
        handler = app.view_functions[rule.endpoint]
        operation = getattr(handler, "operation", None)
        if operation is not None:
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}:
                operations[path, method.lower()] = operation, handler
    models: set[Model] = {
        model for operation, _ in operations.values() for model in operation.models
    }
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models | {Problem}, key=lambda m: m.__name__)],
        ref_template=SCHEMAS + "{model}",
    )
    schemas = definitions["$defs"]
    paths: Json = {}
    statuses: set[int] = set()
    for (path, method), (operation, handler) in operations.items():
        documented, problems = _operation(path, operation, handler, schemas)
        paths.setdefault(path, {})[method] = documented
        statuses |= problems
    for name, schema in schemas.items():
        if name.endswith("Form"):
            _without_null(schema.get("properties", {}).values())
    tags = dict.fromkeys(operation.tag for operation, _ in operations.values())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "description": "Generates images for every device on the local network.",
            "version": darkroom.__version__,
        },
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": SECURITY_SCHEMES,
            "responses": {str(status): _problem(status) for status in sorted(statuses)},
        },
        "security": [{name: []} for name in SECURITY_SCHEMES],
    }


def _operation(
    path: str, operation: Operation, handler: Callable[..., Any], schemas: Json
) -> tuple[Json, set[int]]:
    """One operation of the document, and the statuses of its problems."""
    summary, _, description = (inspect.getdoc(handler) or "").partition("\n")
    in_path = re.findall(r"{(\w+)}", path)
    problems = {status for status in operation.answers if status >= 400} | set(EVERYWHERE)
    problems |= {404} if in_path else set()
    responses = {
        str(status): _success(status, model, operation.sends.get(status, ()))
        for status, model in operation.answers.items()
        if status < 400
    }
    responses |= {str(status): {"$ref": f"{RESPONSES}{status}"} for status in problems}
    documented: Json = {
        "summary": summary,
        "operationId": operation.id,
        "description": description.strip(),
        "tags": [operation.tag],
        "parameters": [
            *(_path_parameter(name) for name in in_path),
            *_query_parameters(operation.query, schemas),
            *(taken.write() for taken in (*operation.takes, GIVEN_ID)),
        ],
        "responses": dict(sorted(responses.items())),
    }
    bodies = {JSON: operation.json, "multipart/form-data": operation.form}
    content = {kind: {"schema": _ref(model)} for kind, model in bodies.items() if model is not None}
    if content:
        documented["requestBody"] = {"content": content, "required": True}
    if operation.public:
        documented["security"] = []
    return documented, problems


def _ref(model: Model) -> Json:
    return {"$ref": SCHEMAS + model.__name__}


def _path_parameter(name: str) -> Json:
    schema = {"type": "string", "pattern": PATTERNS.get(name, ".+")}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": ""}


def _query_parameters(query: Model | None, schemas: Json) -> list[Json]:
    if query is None:
        return []
    found = schemas[query.__name__]
    parameters = []
    for name, field in found["properties"].items():
        schema = dict(field)
        _without_null([schema])
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
        response["links"] = LINKS[model]()
    return response


def _problem(status: int) -> Json:
    headers = {"X-Request-Id": REQUEST_ID}
    if status in WAIT:
        headers["Retry-After"] = RETRY_AFTER
    return {
        "description": WHY.get(status, HTTPStatus(status).phrase),
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": _ref(Problem)}},
    }


def _without_null(schemas: Iterable[Json]) -> None:
    """Remove null from optional fields: queries and forms cannot send it."""
    for schema in schemas:
        kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del schema["anyOf"]
            schema.update(kinds[0])
        if schema.get("default", ...) is None:
            del schema["default"]


def form_model(task: Task) -> Model:
    """The multipart form of a task: the same fields, pictures as file parts or references."""
    cls = REQUESTS[task]
    binary = Field(json_schema_extra={"format": "binary"})
    listed = Field("[]", description="A JSON list of `{name, scale}`.")
    parts: dict[str, Any] = {
        name: (ImageSource, binary) for name in ("image", "mask_image") if name in cls.model_fields
    }
    if "loras" in cls.model_fields:
        parts["loras"] = (str, listed)
    return create_model(f"{cls.__name__.removesuffix('Request')}Form", __base__=cls, **parts)
