"""What an exception means for the job that met it."""

import torch

from darkroom.catalog.models import UnknownModelError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work at a time would have fitted. PyTorch has no class for it on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def describe(error: Exception) -> tuple[str, str]:
    """The kind of `Broken`, and what to say of it to the person who asked."""
    if is_out_of_memory(error):
        return "out-of-memory", "there is not enough memory for this job"
    if isinstance(error, UnknownModelError | OSError):
        return "model", str(error)
    if isinstance(error, ValueError):
        return "request", str(error)
    return "engine", f"{type(error).__name__}: {error}"
