"""Remembers what a pipeline's `encode_prompt` gave for a prompt."""

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch

from darkroom.engine.errors import NotFiniteError

CAPACITY_BYTES = 2**28  # of tensors, the least recently used out first
PLAIN = (str, int, float, bool, torch.device, torch.dtype)


class TextCache:
    """Encoded prompts of one loaded model. Used from one thread."""

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._capacity_bytes = capacity_bytes
        self._kept: dict[Hashable, tuple[Any, int]] = {}

    def around(self, pipeline: Any, variant: Hashable = ()) -> Callable[..., Any]:
        """The pipeline's `encode_prompt`, which asks the encoders once for a prompt.

        Prompts with pictures, and those that come encoded, are not remembered.

        Args:
            variant: what else the encoders depend on: the LoRAs that are applied.
        """
        encode = pipeline.encode_prompt
        signature = inspect.signature(encode)

        def remembering(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            if not all(_plain(value) for value in given.values()):
                return _checked(encode(*args, **kwargs))
            key = (type(pipeline), variant, repr(sorted(given.items())))
            found = self._kept.pop(key, None)
            if found is None:
                made = _checked(encode(*args, **kwargs))
                found = made, sum(tensor.nbytes for tensor in _tensors(made))
            self._kept[key] = found
            self._shrink()
            return found[0]

        return remembering

    def _shrink(self) -> None:
        size = sum(size for _, size in self._kept.values())
        while size > self._capacity_bytes and len(self._kept) > 1:
            _, freed = self._kept.pop(next(iter(self._kept)))
            size -= freed


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(entry) for entry in value)
    return value is None or isinstance(value, PLAIN)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)


def _checked(made: Any) -> Any:
    if not all(tensor.isfinite().all() for tensor in _tensors(made)):
        raise NotFiniteError("text encoder")
    return made
