"""What is answered: jobs, images, events, listings and tokens, as they go over the wire.

Everything here is frozen and knows neither HTTP, SQL nor torch.
"""

import enum
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from darkroom.errors import Message, Value
from darkroom.requests import Schema, Scope, Task


class JobStatus(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class _Coded(Schema):
    """Takes `code` and `values` from a detail that is a `Message`."""

    @model_validator(mode="before")
    @classmethod
    def _read_message(cls, data: Any) -> Any:
        detail = data.get("detail") if isinstance(data, dict) else None
        if isinstance(detail, Message) and detail.code:
            return {"code": detail.code, "values": detail.values, **data}
        return data


class FieldError(_Coded):
    """One thing wrong with one field.

    A `Message` as detail gives `code`, what it says, and `values`, the numbers and names in it.
    """

    pointer: str = Field(description="A JSON pointer as a URI fragment.", examples=["#/width"])
    detail: str
    code: str | None = None
    values: dict[str, Value] = Field(default_factory=dict)


class Problem(_Coded):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:darkroom:problem:validation"])
    title: str
    status: int
    detail: str
    code: str | None = Field(None, description="What `detail` says, for programs that translate.")
    values: dict[str, Value] = Field(default_factory=dict)
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None


SOURCE_GONE = "The source picture is gone"  # the title of `urn:darkroom:problem:source`


class Note(Schema):
    """A note on a job, with what it says and the numbers and names in it."""

    text: str
    code: str | None = None
    values: dict[str, Value] = Field(default_factory=dict)


class Progress(Schema):
    """Denoising steps over all images of a job that have been made, and how many there are."""

    step: int = Field(ge=0)
    steps: int = Field(ge=0)


class Image(Schema):
    """A stored picture."""

    id: str
    job_id: str
    index: int
    seed: int
    width: int
    height: int
    content_type: str
    bytes: int
    sha256: str
    worker: str | None = Field(None, description="Name of the worker that made it, if known.")
    device: str | None = Field(None, description="What it was made on, such as `cuda`.")
    created_at: datetime
    url: str


class WebhookState(enum.StrEnum):
    WAITING = "waiting"  # for the job's end
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Webhook(Schema):
    """The state of a job's webhook, without its address, which may be a secret."""

    state: WebhookState
    attempts: int
    last_error: str | None = Field(description="Why the last attempt came to nothing.")


class Job(Schema):
    """What was asked, how it stands, and what came of it."""

    id: str
    client: str = Field(description="Who asked: the name of their device.")
    client_id: str = Field(description="Who asked: `client_id` of their `GET /me`.")
    task: Task
    status: JobStatus
    position: int | None = Field(description="Jobs ahead of it while queued, else null.")
    eta_seconds: float | None = Field(description="Measured estimate to the end, or null.")
    progress: Progress
    attempts: int
    worker: str | None = Field(description="Name of the worker where it runs or ran last.")
    device: str | None = Field(description="What that runs on, such as `cuda`.")
    request: dict[str, Any]
    images: tuple[Image, ...]
    notes: tuple[str, ...] = Field(
        description="What was done differently from what was asked, and what else to know.",
        examples=[["memory was short: VAE in tiles of 512 pixels"]],
    )
    coded_notes: tuple[Note, ...] = Field(
        description="The same notes, for programs that translate them.",
        examples=[
            [
                {
                    "text": "memory was short: VAE in tiles of 512 pixels",
                    "code": "memory_tiles",
                    "values": {"side": 512},
                }
            ]
        ],
    )
    error: Problem | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    url: str
    webhook: Webhook | None = Field(description="Of a request with a webhook, else null.")


class ExplainedArray(Schema):
    """An array of numbers, row by row, base64."""

    shape: tuple[int, ...]
    dtype: Literal["uint8"] = "uint8"
    data: str


class TokenMaps(ExplainedArray):
    """Where the network looked for each token: (tokens, height, width).

    A byte of 255 stands for the token's peak: the number is byte / 255 × peak, the share of its
    attention that a place of the picture gives to that token.
    """

    peaks: tuple[float, ...] = Field(description="The greatest number of each token's map.")


class TokenKind(enum.StrEnum):
    START = "start"
    TEXT = "text"  # of the prompt
    END = "end"
    TEMPLATE = "template"  # of what the model puts around a prompt
    PADDING = "padding"  # all of it in one


class ExplainedToken(Schema):
    """A token of the prompt, as the network is given it."""

    text: str
    kind: TokenKind
    word: int | None = Field(None, description="Index in `words`.")


class ExplainedWord(Schema):
    """A word of the prompt. Its map is the sum of its tokens' maps."""

    text: str
    tokens: tuple[int, ...] = Field(description="Indices in `tokens`.")


class ExplainedMaps(Schema):
    """Means over layers, heads and steps."""

    last_quarter: TokenMaps = Field(description="Of the last quarter of the steps.")
    all_steps: TokenMaps
    carried_back: TokenMaps | None = Field(
        description="Those of all steps, carried back through the text encoder by attention "
        "rollout (arXiv 2005.00928); null where the encoder is not CLIP's."
    )


class ExplainedStep(Schema):
    """One denoising step. The pictures are WebP as data URIs, null where none can be shown."""

    index: int = Field(description="Among the picture's own steps, from 0.")
    timestep: float
    signal: float = Field(description="How much of the latents is picture.")
    noise: float = Field(description="How much of the latents is noise.")
    latents: str | None = Field(description="What the network was given.")
    predicted_noise: str | None = Field(description="The noise that it found there.")
    guess: str | None = Field(description="The picture that would be left without that noise.")


class ExplainedSeconds(Schema):
    """The picture's share of the time of each part."""

    prepare: float = Field(description="The prompt, the source, and the first noise.")
    denoise: float = Field(description="All steps, and what it takes to explain them.")
    decode: float


class ExplainedImage(Schema):
    """How a picture was made."""

    index: int
    seed: int
    crop: tuple[int, int, int, int] | None = Field(
        None,
        description="Left, top, right and bottom of the part of the picture that maps and steps "
        "show; null is all of it.",
    )
    tokens: tuple[ExplainedToken, ...]
    words: tuple[ExplainedWord, ...]
    maps: ExplainedMaps
    steps: tuple[ExplainedStep, ...] = Field(description="At most eight, evenly chosen.")
    seconds: ExplainedSeconds


class Explanation(Schema):
    """How a job's pictures were made, those that are ready."""

    job_id: str
    images: tuple[ExplainedImage, ...]


DATA_URI = "data:image/webp;base64,"  # begins previews, and pictures of explanations
MAX_EXPLANATION_BYTES = 8_000_000  # of a job, as JSON


class JobPage(Schema):
    """Jobs newest first, and how to get the older ones."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


class EventType(enum.StrEnum):
    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    PREVIEW = "preview"
    NOTE = "note"
    IMAGE = "image"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


class Event(Schema):
    """One line of the event log. Ids grow, over all jobs."""

    id: int
    job_id: str
    type: EventType
    data: dict[str, Any]


class ModelDefaults(Schema):
    """What a request takes when it does not say."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str


class ModelLimits(Schema):
    """What a request may say. Sizes in pixels."""

    min_side: int
    max_side: int
    max_pixels: int
    multiple_of: int
    max_clip_skip: int
    max_references: int = Field(0, description="Pictures that an instruction to edit may have.")


class PictureSize(Schema):
    """In pixels."""

    width: int
    height: int


class WorkerInfo(Schema):
    """A worker of this server's queue."""

    name: str
    alive: bool = Field(description="Whether it has been heard of lately.")
    ready: bool = Field(description="Whether its default model is loaded.")
    draining: bool = Field(description="Whether it only finishes what it has.")
    device: str = Field(examples=["cuda"])
    device_name: str = Field(description="What its GPU or CPU is called.")
    torch: str = Field(description="The version of torch; pictures' bytes depend on it.")
    free_bytes: int | None = Field(description="Of its GPU's memory, or its machine's.")
    models: tuple[str, ...] = Field(description="Names of the models that it has.")
    resident: tuple[str, ...] = Field(description="Of these, those in memory.")
    jobs_in_flight: int
    max_in_flight: int
    seen_at: datetime = Field(description="When it was heard of last.")


class WorkerList(Schema):
    workers: tuple[WorkerInfo, ...]


class ModelInfo(Schema):
    """A model that may be asked for."""

    name: str
    title: str = Field("", description="What people call it; empty if its files do not say.")
    family: str
    description: str
    trigger_words: tuple[str, ...] = Field(
        (), description="What to write in the prompt for what it was trained on."
    )
    licence: str = Field("", description="As its files say; empty if they do not.")
    note: str = Field("", description="What to know before using it, such as: demo model.")
    examples: tuple[str, ...] = Field((), description="Prompts that show what it can draw.")
    sizes: tuple[PictureSize, ...] = Field(
        (), description="Sizes that it draws well; if empty, about as many pixels as the default."
    )
    tasks: tuple[Task, ...]
    defaults: ModelDefaults
    limits: ModelLimits
    fields: tuple[str, ...] = Field(
        description="The optional fields of requests that it takes; it refuses the others."
    )
    schedulers: tuple[str, ...] = Field(
        description="Names of the schedulers that it takes; if empty, all of `GET /schedulers`."
    )
    default: bool = Field(description="Whether it answers requests that name no model.")
    broken: str | None = Field(
        None, description="Why it could not be loaded; it is tried again when its files change."
    )
    size_bytes: int = Field(0, description="Of its weights on the disk.")
    memory_bytes: int | None = Field(
        None, description="What its weights take in memory; null while no worker runs."
    )
    fits: bool | None = Field(
        None,
        description="Whether they fit into the memory that models may take; else parts of it wait "
        "outside, and it is slower. Null while no worker runs.",
    )
    resident: bool = Field(False, description="Whether it was in memory a few seconds ago.")
    workers: tuple[str, ...] = Field((), description="Names of the workers that run and have it.")
    thumbnail_url: str | None = Field(None, description="A picture that shows what it draws.")
    sha256: str | None = Field(
        None, description="Of its file; null of a folder, and until it was made in the background."
    )
    autov2: str | None = Field(None, description="The first ten digits of `sha256`.")
    deletable: bool = Field(
        False,
        description="Whether its files are this server's own, so that an owner may delete it.",
    )


class OpenAIModel(Schema):
    """A model as OpenAI lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When its files were changed, in seconds since the epoch.")
    owned_by: str = "darkroom"


class ModelList(Schema):
    """All models; in `data` for clients of OpenAI whose base URL lacks `/v1`."""

    models: tuple[ModelInfo, ...]
    object: Literal["list"] = "list"
    data: tuple[OpenAIModel, ...]


class SchedulerInfo(Schema):
    """A scheduler and the ways its noise levels may be spaced."""

    name: str
    title: str
    variants: tuple[str, ...] = Field(description="Full names with a spacing suffix.")


class SchedulerList(Schema):
    schedulers: tuple[SchedulerInfo, ...]


class BrokenFile(Schema):
    """A file that lies where the server looks, but cannot be used."""

    file: str
    reason: str


class LoraDefaults(Schema):
    """What a request with the LoRA takes when it does not say; null is the model's default."""

    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None


class LoraInfo(Schema):
    """A LoRA that may be asked for."""

    name: str
    family: str = Field(
        description="sd1, sd2, sdxl, width-<text_dim>; sd3, flux, flux2, z-image, qwen-image; "
        "or unknown."
    )
    text_dim: int | None = Field(
        description="Width of the text that a UNet's was trained on; it fits models of the same."
    )
    title: str
    description: str
    trigger_words: tuple[str, ...] = Field(description="What to write in the prompt to wake it.")
    aliases: tuple[str, ...] = Field(
        (), description="Other names that requests and prompts may use if no other LoRA has them."
    )
    models: tuple[str, ...] = Field((), description="Models on this server that it fits.")
    defaults: LoraDefaults | None = Field(
        None, description="Of a LoRA that distils a model to few steps; null for others."
    )
    sha256: str | None = Field(
        None, description="Of its file; null until it was made in the background."
    )
    thumbnail_url: str | None = Field(None, description="A picture that shows what it does.")


class LoraList(Schema):
    loras: tuple[LoraInfo, ...]
    broken: tuple[BrokenFile, ...]


class UpscalerInfo(Schema):
    """A network that makes pictures larger."""

    name: str
    architecture: str = Field(description="ESRGAN or Compact.")
    scale: int = Field(description="How many times larger a picture becomes, in each direction.")
    max_pixels: int = Field(description="Width × height of the largest picture that it takes.")


class UpscalerList(Schema):
    upscalers: tuple[UpscalerInfo, ...]
    broken: tuple[BrokenFile, ...]


class EmbeddingInfo(Schema):
    """A textual inversion: write its name in a prompt."""

    name: str
    family: str = Field(description="sd1, sd2, sdxl, or width-<text_dim>.")
    text_dim: int = Field(description="Width of the text it was trained on.")
    vectors: int = Field(description="Tokens of the prompt that it takes up.")
    models: tuple[str, ...] = Field((), description="Models on this server that it fits.")


class EmbeddingList(Schema):
    embeddings: tuple[EmbeddingInfo, ...]
    broken: tuple[BrokenFile, ...]


# --- downloads -------------------------------------------------------------------------------


class PullPlan(Schema):
    """What would be downloaded, and whether there is room for it."""

    source: str
    kind: str = Field(description="models, loras, embeddings, upscalers or vae.")
    name: str = Field(description="What it will be called here.")
    title: str = Field(description="What the hub calls it.")
    family: str = Field(description="Of a model, as in `GET /models`; empty if it is not known.")
    files: int
    total_bytes: int
    done_bytes: int = Field(description="Those that an earlier try has brought.")
    free_bytes: int = Field(description="That it may take of the disk.")
    fits_on_disk: bool
    memory_bytes: int | None = Field(
        description="What its weights will take in memory; null if that is not known."
    )
    fits: bool | None = Field(
        description="Whether they fit into the memory that models may take; else it is slower. "
        "Null if that is not known."
    )
    lacks: str | None = Field(
        description="Why it could not draw yet when it has arrived, such as a text encoder that is "
        "missing; else null."
    )


class Pull(Schema):
    """A download of a model, or of what goes with one."""

    id: str
    source: str
    kind: str = Field(description="models, loras, embeddings, upscalers or vae.")
    name: str
    title: str = Field(description="What the hub calls it.")
    status: JobStatus = Field(
        description="One that failed keeps what has arrived: asked for again, it goes on there."
    )
    done_bytes: int
    total_bytes: int
    bytes_per_second: float | None = Field(description="Null until it is measured.")
    error: Problem | None
    created_at: datetime
    finished_at: datetime | None
    url: str


class PullList(Schema):
    """Downloads, the newest first."""

    pulls: tuple[Pull, ...]


# --- devices ---------------------------------------------------------------------------------


class Token(Schema):
    """A token of a device. Its secret is not kept."""

    id: str
    device: str = Field(description="Id of the device.")
    name: str = Field(description="Name of the device.")
    scope: Scope
    created_at: datetime
    used_at: datetime | None = Field(description="To the minute.")


class IssuedToken(Token):
    """A token and its secret, which is shown this once."""

    token: str = Field(description="For `Authorization: Bearer`.", examples=["dk_…"])


class TokenList(Schema):
    tokens: tuple[Token, ...]


class Device(Schema):
    """A phone, computer or program, with what it made and the tokens that let it in."""

    id: str
    client_id: str = Field(description="`client_id` of its jobs.")
    name: str
    scope: Scope = Field(description="Of its newest token, also if that was revoked.")
    created_at: datetime
    used_at: datetime | None = Field(description="When it used a token last. To the minute.")
    jobs: int = Field(description="How many jobs of it are stored.")
    tokens: tuple[Token, ...] = Field(description="Those that are valid, oldest first.")


class DeviceList(Schema):
    devices: tuple[Device, ...]


class PairingCode(Schema):
    """Good for one token, once."""

    code: str
    device: str | None = Field(description="Id of the device that it is for; null is a new one.")
    scope: Scope
    url: str = Field(description="The first page, with the code filled in.")
    qr: str = Field(description="The same as a QR code: a data URI of an SVG.")
    expires_at: datetime


class Me(Schema):
    """Who is asking, as the server sees it."""

    client: str = Field(description="`token:<id>`, `address:<ip>`, or `local`.")
    client_id: str = Field(description="As in the caller's jobs.")
    device: str | None = Field(description="Id of the device; null for callers without a token.")
    name: str
    scope: Scope
