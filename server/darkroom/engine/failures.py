"""Classifies exceptions of engine calls for the job that caused them."""

import torch

from darkroom.catalog.models import UnknownModelError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. PyTorch has no exception class for it on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def describe(error: Exception) -> tuple[str, str]:
    """The kind and detail of the `Failed` event."""
    if is_out_of_memory(error):
        return "out-of-memory", "there is not enough memory for this job"
    if isinstance(error, UnknownModelError | OSError):
        return "model", str(error)
    if isinstance(error, ValueError):
        return "request", str(error)
    return "engine", f"{type(error).__name__}: {error}"
