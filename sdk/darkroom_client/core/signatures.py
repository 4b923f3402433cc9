"""Gives methods the signature of a request's type."""

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
ClientT = TypeVar("ClientT")
RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


def takes_fields(
    request_type: Callable[P, RequestT],
) -> Callable[[Callable[[ClientT, RequestT], AnswerT]], Callable[Concatenate[ClientT, P], AnswerT]]:
    """Give a method the arguments of a request's type, so that they are written down once."""

    def decorate(
        method: Callable[[ClientT, RequestT], AnswerT],
    ) -> Callable[Concatenate[ClientT, P], AnswerT]:
        @functools.wraps(method)
        def takes(self: ClientT, /, *args: P.args, **kwargs: P.kwargs) -> AnswerT:
            return method(self, request_type(*args, **kwargs))

        # For help() and notebooks.
        own = inspect.signature(method)
        theirs = inspect.signature(request_type).parameters.values()
        first = next(iter(own.parameters.values())).replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        takes.__signature__ = own.replace(parameters=[first, *theirs])  # type: ignore[attr-defined]
        return takes

    return decorate
