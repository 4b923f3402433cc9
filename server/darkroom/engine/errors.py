"""What an exception means for the engine: one policy for loads, calls, steps, previews and codecs.

| kind | what happens |
|---|---|
| lost context | it leaves the process: the supervisor starts another, and the jobs run again |
| memory | the same is tried with less; a job fails when nothing is left to lower |
| request | the job fails: its parameters do not fit this model or scheduler |
| model | the job fails, and while it loads, the model is marked as broken |
| fault | the jobs of a shared call go on alone, and the one that fails then, fails |
"""

import enum
from collections.abc import Iterator

import torch

from darkroom.catalog.models import UnknownModelError
from darkroom.errors import DarkroomError, fault, message, text_of


class Kind(enum.StrEnum):
    """A class of errors; the value is the `kind` of `Failed`."""

    LOST_CONTEXT = "lost-context"
    MEMORY = "out-of-memory"
    REQUEST = "request"
    MODEL = "model"
    FAULT = "engine"


class NotFiniteError(DarkroomError, ArithmeticError):
    """A network gave NaN or infinity."""

    def __init__(self, network: str) -> None:
        super().__init__(
            message(
                "not_finite",
                "the {network} gave numbers that are not finite: this model does not work in this "
                "dtype, or its files are damaged (see `engine.dtype`)",
                network=network,
            )
        )


# What drivers say in a plain RuntimeError when the context is gone. That handles of cuBLAS and
# cuDNN cannot be made comes of a lack of memory.
_LOST = ("CUDA error", "HIP error", "cuDNN error", "CUBLAS_STATUS_EXECUTION_FAILED", "device lost")
_MEMORY = (
    "out of memory",
    "can't allocate memory",  # PyTorch has no exception class for it on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "ALLOCATION_FAILED",
    # What is left of it when no plan of a convolution finds room (pytorch/pytorch#108645).
    "unable to find an engine to execute this computation",
)


def classify(error: BaseException) -> Kind:
    """The kind of an error, or of the one that caused it."""
    for cause in _causes(error):
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return Kind.MEMORY
        if isinstance(cause, RuntimeError) and any(text in str(cause) for text in _MEMORY):
            return Kind.MEMORY
        if isinstance(cause, torch.AcceleratorError):
            return Kind.LOST_CONTEXT
        if isinstance(cause, RuntimeError) and any(text in str(cause) for text in _LOST):
            return Kind.LOST_CONTEXT
    if isinstance(error, UnknownModelError | OSError | NotFiniteError):
        return Kind.MODEL
    if isinstance(error, ValueError):
        return Kind.REQUEST
    if isinstance(error, RuntimeError) and _is_misfit(error):
        return Kind.MODEL
    return Kind.FAULT


def survivable(error: Exception) -> Kind:
    """The kind of an error that this process survives; raises the error if it does not."""
    kind = classify(error)
    if kind is Kind.LOST_CONTEXT:
        raise error
    return kind


def is_out_of_memory(error: BaseException) -> bool:
    return classify(error) is Kind.MEMORY


def drop_frames(error: BaseException) -> None:
    """Let go of what the frames of an exception and of its causes hold, such as a model."""
    for cause in _causes(error):
        cause.__traceback__ = None


def describe(error: BaseException, kind: Kind) -> str:
    """A sentence for the user, as a `Message` where it is one of ours."""
    match kind:
        case Kind.MEMORY:
            return message("out_of_memory", "there is not enough memory for this job")
        case Kind.FAULT:
            return fault(error)
        case Kind.MODEL if isinstance(error, RuntimeError):
            return message(
                "parts_misfit",
                "the model's parts do not fit each other: {error}",
                error=str(error),
            )
    return text_of(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_misfit(error: RuntimeError) -> bool:
    """Whether tensors of different shapes met, as in a model whose parts are not of one kind."""
    shapes = ("shapes cannot be multiplied", "size of tensor", "Sizes of tensors", "size mismatch")
    return any(text in str(error) for text in (*shapes, "expected input", "normalized_shape"))
