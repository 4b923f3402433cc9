"""Python client of a Darkroom server: pictures from your own server, without torch."""

from darkroom_client.asynchronous.client import AsyncClient
from darkroom_client.asynchronous.explanation import AsyncExplanation
from darkroom_client.asynchronous.job import AsyncJob
from darkroom_client.asynchronous.picture import AsyncImage, AsyncPicture
from darkroom_client.asynchronous.watch import AsyncEvent
from darkroom_client.blocking.client import Client
from darkroom_client.blocking.explanation import Explanation
from darkroom_client.blocking.job import Job
from darkroom_client.blocking.picture import Image, Picture
from darkroom_client.blocking.watch import Event
from darkroom_client.core.arrays import PixelArray
from darkroom_client.core.catalog import (
    EmbeddingInfo,
    Health,
    LoraDefaults,
    LoraInfo,
    Model,
    ModelDefaults,
    ModelLimits,
    Scheduler,
    UpscalerInfo,
)
from darkroom_client.core.errors import (
    APIError,
    ConflictError,
    ConnectionFailedError,
    DarkroomError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnexpectedResponseError,
    WaitTimeoutError,
)
from darkroom_client.core.events import (
    CancelledEvent,
    FailedEvent,
    ImageEvent,
    NoteEvent,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    SucceededEvent,
)
from darkroom_client.core.explanation import ExplainedImage
from darkroom_client.core.lora import Lora
from darkroom_client.core.problem import FieldError, Problem
from darkroom_client.core.pulls import Pull, PullPlan
from darkroom_client.core.records import JobStatus, Progress, Task
from darkroom_client.core.requests import Edit, Img2Img, Inpaint, Txt2Img, Upscale
from darkroom_client.core.sources import PictureSource
from darkroom_client.core.webhooks import WebhookError, WebhookMessage, verify_webhook
from darkroom_client.core.workers import Worker
from darkroom_client.credentials import CredentialsError
from darkroom_client.discovery import DiscoveryError, FoundServer
from darkroom_client.effects import AsyncEffects, Effects

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncEffects",
    "AsyncEvent",
    "AsyncExplanation",
    "AsyncImage",
    "AsyncJob",
    "AsyncPicture",
    "CancelledEvent",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "CredentialsError",
    "DarkroomError",
    "DiscoveryError",
    "Edit",
    "Effects",
    "EmbeddingInfo",
    "Event",
    "ExplainedImage",
    "Explanation",
    "FailedEvent",
    "FieldError",
    "FoundServer",
    "Health",
    "Image",
    "ImageEvent",
    "Img2Img",
    "Inpaint",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "JobStatus",
    "Lora",
    "LoraDefaults",
    "LoraInfo",
    "Model",
    "ModelDefaults",
    "ModelLimits",
    "NotFoundError",
    "NoteEvent",
    "PermissionDeniedError",
    "Picture",
    "PictureSource",
    "PixelArray",
    "PreviewEvent",
    "Problem",
    "Progress",
    "ProgressEvent",
    "Pull",
    "PullPlan",
    "QueuedEvent",
    "RateLimitedError",
    "Scheduler",
    "ServerError",
    "StartedEvent",
    "SucceededEvent",
    "Task",
    "Txt2Img",
    "UnexpectedResponseError",
    "Upscale",
    "UpscalerInfo",
    "WaitTimeoutError",
    "WebhookError",
    "WebhookMessage",
    "Worker",
    "verify_webhook",
]
