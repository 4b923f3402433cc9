"""The tables. Times are seconds since the epoch, UTC; JSON is text."""

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FROM_PICTURES = text("task <> 'txt2img'")  # jobs that may work from uploads
# SQLite numbers rows by themselves where the type is INTEGER, which has 64 bits there.
Number = BigInteger().with_variant(Integer(), "sqlite")


class Table(DeclarativeBase):
    type_annotation_map = {float: Float}  # noqa: RUF012


class JobRow(Table):
    """A job.

    Attributes:
        sequence: orders all jobs by acceptance.
        client: who asked: `local`, `device:<id>` or `address:<ip>`; `client_name` is for people.
        request: JSON of the resolved request of its task, without nulls.
        model, pixels, images, steps: its `Workload`; the worker corrects `steps` when it starts.
        urgency: 0 to 7, the most urgent first, among one client's jobs (RFC 9218).
        isolated: whether it was in flight when a worker died, and must run alone from now on.
        loras: names of those that it needs, a line each.
        worker, device: where it runs or ran last. `lease` is the process there that holds it.
        predicted_s: from acceptance to the end, as foreseen when it was accepted.
        wanted_until: when it may be cancelled if its caller has not come back; later while the
            caller waits. None lets it go on without.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("client", "idempotency_key"),
        Index("jobs_by_status", "status", "sequence"),
        Index(
            # Of queued jobs alone, which a migration says, as with `jobs_from_pictures`: here,
            # SQLAlchemy would import the dialects of both databases at each start.
            "jobs_queued",
            *("status", "client", "model", "pixels", "urgency", "images", "steps"),
        ),
        Index("jobs_by_client", "client", "sequence"),
        Index("jobs_by_client_status", "client", "status", "sequence"),
        Index("jobs_by_end", "finished_at", "sequence"),
        Index("jobs_from_pictures", "sequence"),
        Index("jobs_by_fingerprint", "client", "fingerprint"),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(Number, primary_key=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    client: Mapped[str] = mapped_column(String(200))
    client_name: Mapped[str] = mapped_column(String(100), default="")
    task: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    request: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(210))
    pixels: Mapped[int]
    images: Mapped[int]
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    urgency: Mapped[int] = mapped_column(default=3)
    attempts: Mapped[int] = mapped_column(default=0)
    isolated: Mapped[bool] = mapped_column(default=False)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    loras: Mapped[str] = mapped_column(Text, default="", server_default="")
    worker: Mapped[str | None] = mapped_column(String(200))
    device: Mapped[str | None] = mapped_column(String(64))
    lease: Mapped[str | None] = mapped_column(String(32), index=True)
    lease_until: Mapped[float | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    notes: Mapped[str] = mapped_column(Text, default="[]")
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    predicted_s: Mapped[float | None]
    request_id: Mapped[str | None] = mapped_column(String(64))
    api: Mapped[str | None] = mapped_column(String(16))
    wanted_until: Mapped[float | None]


class ImageRow(Table):
    """A generated image. Its id is the job's id and the index, so a second run adds none.

    `worker` and `device` say where it was made.
    """

    __tablename__ = "images"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    index: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    content_type: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    worker: Mapped[str | None] = mapped_column(String(200))
    device: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float]


class ExplanationRow(Table):
    """How a generated image was made. Its id is the name of the file of JSON, see `records`."""

    __tablename__ = "explanations"

    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id"), unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    index: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class UploadRow(Table):
    """An image sent with a request, decoded and stored as PNG."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    client: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float]


class EventRow(Table):
    """The event log; ids only grow."""

    __tablename__ = "events"
    __table_args__ = (Index("events_by_job", "job_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Number, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]


class WebhookRow(Table):
    """A job's webhook and its delivery; see `webhooks.deliveries`.

    Attributes:
        url: deleted when nothing more is to be sent; `origin`, without secrets, stays.
        due_at: when the next attempt is due, once the job has ended.
        sender: the process that is sending it.
    """

    __tablename__ = "webhooks"
    __table_args__ = (Index("webhooks_by_state", "state", "origin", "due_at"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    url: Mapped[str | None] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(String(300))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float | None]
    sender: Mapped[str | None] = mapped_column(String(64))
    last_error: Mapped[str | None] = mapped_column(String(200))


class SpeedRow(Table):
    """A measured speed of the engine: an `estimate.Speed` by `estimate.Kind`."""

    __tablename__ = "speeds"

    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    pixels: Mapped[int] = mapped_column(primary_key=True)
    in_flight: Mapped[int] = mapped_column(primary_key=True)
    step_seconds: Mapped[float]
    other_seconds: Mapped[float]


class UnloadRow(Table):
    """A request to take a model out of memory; ids only grow. See `queue.unloads`."""

    __tablename__ = "unloads"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Number, primary_key=True)
    model: Mapped[str] = mapped_column(String(210))


class PullRow(Table):
    """A download; see `queue.pulls`.

    Attributes:
        source: names the same bytes again, without secrets.
        wanted: JSON of what asks for the same bytes again.
        folder: identity of the data folder, in which alone it is.
        target, unfinished: paths in the data folder, of what arrives and of what has arrived.
        restarts: how often its process died without bringing anything.
    """

    __tablename__ = "pulls"
    __table_args__ = ({"sqlite_autoincrement": True},)

    sequence: Mapped[int] = mapped_column(Number, primary_key=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    source: Mapped[str] = mapped_column(String(500))
    wanted: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    title: Mapped[str] = mapped_column(String(1000))
    folder: Mapped[str] = mapped_column(String(64), default="", server_default="")
    target: Mapped[str] = mapped_column(Text)
    unfinished: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), index=True)
    done_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    bytes_per_second: Mapped[float | None]
    restarts: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class WorkerRow(Table):
    """A worker, alive until its lease expires.

    Attributes:
        id: its name.
        lease: the process that has the name now.
        folder: identity of its data folder; empty if the database is in that folder.
        device, device_name: such as `cuda`, and what the GPU or CPU is called.
        free_bytes: of the GPU's memory, or the machine's; None if not known.
        draining: whether it claims nothing new.
        seen_at: when it sent its last heartbeat.
        metrics: in Prometheus' text format.
        broken: the models that it could not load, with the reasons, as a JSON object.
        memory: what models take of its memory, as the JSON of an `EngineMemory`, or `{}`.
        catalog: what it has, see `catalog.published`; `catalog_digest` is the text's SHA-256. Both
            are empty if the database is in its data folder, which others can read themselves.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    ready: Mapped[bool] = mapped_column(default=False)
    device: Mapped[str] = mapped_column(String(64))
    max_in_flight: Mapped[int]
    lease_until: Mapped[float]
    metrics: Mapped[str] = mapped_column(Text, default="")
    broken: Mapped[str] = mapped_column(Text, default="{}", server_default="{}")
    memory: Mapped[str] = mapped_column(Text, default="{}", server_default="{}")
    lease: Mapped[str] = mapped_column(String(32), default="", server_default="")
    folder: Mapped[str] = mapped_column(String(64), default="", server_default="")
    device_name: Mapped[str] = mapped_column(String(200), default="", server_default="")
    torch: Mapped[str] = mapped_column(String(64), default="", server_default="")
    free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    draining: Mapped[bool] = mapped_column(default=False, server_default=false())
    seen_at: Mapped[float] = mapped_column(default=0.0, server_default="0")
    catalog: Mapped[str] = mapped_column(Text, default="{}", server_default="{}")
    catalog_digest: Mapped[str] = mapped_column(String(64), default="", server_default="")


class TotalRow(Table):
    """A number that triggers keep, see `totals`. Never written otherwise, nor copied."""

    __tablename__ = "totals"

    name: Mapped[str] = mapped_column(String(210), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class ClientRow(Table):
    """A client's place in the rotation: `served` is its ticket, see `fairness`."""

    __tablename__ = "clients"

    client: Mapped[str] = mapped_column(String(200), primary_key=True)
    served: Mapped[int] = mapped_column(BigInteger)


class SecretRow(Table):
    """A key of all web processes, by its file's name; see `shared_keys`."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)


class ClientOptionsRow(Table):
    """A client's settings by name, as JSON; see `preferences`."""

    __tablename__ = "client_options"

    client: Mapped[str] = mapped_column(String(200), primary_key=True)
    options: Mapped[str] = mapped_column(Text)


class DeviceRow(Table):
    """A device or program. What it makes belongs to it, whichever of its tokens it used."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    created_at: Mapped[float]


class TokenRow(Table):
    """A device's token; only the SHA-256 of its 256 random bits is stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    scope: Mapped[str] = mapped_column(String(8))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float]
    used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class PairingCodeRow(Table):
    """A code that can be exchanged for one token. It is deleted when it is used.

    The token is for the device `device_id`, or for a new one if that is None.
    """

    __tablename__ = "pairing_codes"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))
    scope: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[float]
    expires_at: Mapped[float]
