"""The OpenAPI document, written from the handlers' models by SpecTree.

SpecTree only describes. Standing between Flask and a handler it would read every answer to its end
before the first byte is sent, event streams too; and one of our routes takes JSON and multipart
with one error shape. So it is shown a copy of the routes on an application that is never served.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, request
from pydantic import BaseModel, Field, ValidationError, create_model
from spectree import Response as Answers
from spectree import SecurityScheme, SpecTree
from spectree.models import InType, SecureType, SecuritySchemeData

import darkroom
from darkroom.api.auth.access import COOKIE
from darkroom.api.errors import field_errors, invalid, pointer
from darkroom.api.operations import Parameter, Saying, finish
from darkroom.requests import ALL_REQUEST_TYPES, ImageSource, Task
from darkroom.responses import FieldError, Job, Problem

Handler = TypeVar("Handler", bound=Callable[..., Response])
Query = TypeVar("Query", bound=BaseModel)


SECURITY_SCHEMES = [
    SecurityScheme("bearer", SecuritySchemeData(SecureType.HTTP, scheme="bearer")),
    SecurityScheme("basic", SecuritySchemeData(SecureType.HTTP, scheme="basic")),
    SecurityScheme(
        "cookie", SecuritySchemeData(SecureType.API_KEY, name=COOKIE, field_in=InType.COOKIE)
    ),
]


class Document:
    """Registers handlers and remembers what to say of them."""

    def __init__(self) -> None:
        self._routes = Flask("darkroom.api.document", static_folder=None)
        self._said: dict[tuple[str, str], Saying] = {}
        self._spec = SpecTree(
            "flask",
            app=self._routes,
            mode="strict",
            title="Darkroom",
            version=darkroom.__version__,
            description="Your own GPU box develops images for everyone on the local network.",
            annotations=False,
            page_templates={},
            naming_strategy=lambda model: model.__name__,
            nested_naming_strategy=lambda _parent, child: child,
            security_schemes=SECURITY_SCHEMES,
            security=[{scheme.name: []} for scheme in SECURITY_SCHEMES],
        )

    def route(
        self,
        blueprint: Blueprint,
        method: str,
        rule: str,
        *,
        sends: Mapping[int, tuple[str, ...]] | None = None,
        takes: tuple[Parameter, ...] = (),
        **about: Any,
    ) -> Callable[[Handler], Handler]:
        """Serve a handler, untouched, and describe it.

        Args:
            blueprint: that serves it.
            method: GET, POST or DELETE.
            rule: of the URL.
            sends: content types by status, where it is not JSON alone.
            takes: parameters beside those of `query`.
            about: SpecTree's arguments: query, json, form, resp, tags.
        """

        def register(handler: Handler) -> Handler:
            blueprint.add_url_rule(rule, view_func=handler, methods=[method])
            names = {"operation_id": handler.__name__, **about}
            described = self._spec.validate(**names, skip_validation=True)(handler)
            name = f"{method} {rule}"
            self._routes.add_url_rule(rule, name, described, methods=[method])
            path = rule.replace("<", "{").replace(">", "}")
            self._said[method.lower(), path] = Saying(sends or {}, takes)
            return handler

        return register

    def write(self) -> dict[str, Any]:
        """The document, as JSON."""
        with self._routes.app_context():
            written: dict[str, Any] = copy.deepcopy(self._spec.spec)
        finish(written, self._said)
        return written


document = Document()

# Beside what every route answers: see `operations.EVERYWHERE`.
GENERATED = Answers(
    HTTP_200=Job,
    HTTP_202=Job,
    HTTP_400=Problem,
    HTTP_409=Problem,
    HTTP_413=Problem,
    HTTP_415=Problem,
    HTTP_422=Problem,
    HTTP_507=Problem,
)


def answers(**models: Any) -> Answers:
    """Documented answers of a route, beside what every route answers.

    What follows from its parameters need not be named: 404 where the path holds one, 422 where
    there are any in the query.
    """
    return Answers(HTTP_500=Problem, **models)


def form_model(task: Task) -> type[BaseModel]:
    """The multipart form of a task: the same fields, pictures as file parts or references."""
    cls = ALL_REQUEST_TYPES[task]
    binary = Field(json_schema_extra={"format": "binary"})
    listed = Field("[]", description="A JSON list of `{name, scale}`.")
    parts: dict[str, Any] = {
        name: (ImageSource, binary) for name in ("image", "mask_image") if name in cls.model_fields
    }
    if "loras" in cls.model_fields:
        parts["loras"] = (str, listed)
    return create_model(f"{cls.__name__.removesuffix('Request')}Form", __base__=cls, **parts)


def read_query(model: type[Query]) -> Query:
    """The current request's query string.

    Raises:
        ProblemError: 422, naming each parameter.
    """
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise invalid(
            FieldError(pointer=pointer(name), detail="is given more than once") for name in twice
        )
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid(field_errors(error, model.model_fields)) from None
