"""The OpenAPI document. SpecTree writes it from the handlers' models; parsing stays ours.

SpecTree's own validation is off for bodies, because one route takes JSON and multipart with one
error shape; it is on for queries, whose findings `refuse` turns into problems.
"""

from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model
from spectree import Response as Answers
from spectree import SpecTree

import darkroom
from darkroom.schemas import REQUEST_TYPES, ImageSource, Job, Problem, Task
from darkroom.web.errors import field_errors, invalid

spec = SpecTree(
    "flask",
    mode="strict",
    title="Darkroom",
    version=darkroom.__version__,
    description="Your own GPU box develops images for everyone on the local network.",
    annotations=True,
    page_templates={},
)


def answers(**models: Any) -> Answers:
    """Documented answers of a route, with the one error shape added."""
    return Answers(HTTP_404=Problem, HTTP_422=Problem, **models)


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


def form_model(task: Task) -> type[BaseModel]:
    """The multipart form of a task: the same fields, pictures as file parts or references."""
    cls = REQUEST_TYPES[task]
    binary = Field(json_schema_extra={"format": "binary"})
    parts: dict[str, Any] = {
        name: (ImageSource, binary) for name in ("image", "mask_image") if name in cls.model_fields
    }
    return create_model(f"{cls.__name__.removesuffix('Request')}Form", __base__=cls, **parts)


def refuse(
    _request: Any, _response: Any, error: Exception | None, _instance: Any, _adapter: Any
) -> None:
    """SpecTree's `before` hook: a query that is not valid is a problem like any other."""
    if isinstance(error, ValidationError):
        raise invalid(field_errors(error, ()))
