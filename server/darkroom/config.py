"""Settings: `config.yaml`, then `DARKROOM_*` environment variables, then the command line.

Nested settings take two underscores in the environment: `DARKROOM_ENGINE__DEVICE=cpu`.
"""

import base64
import difflib
import os
import re
import socket
import warnings
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from darkroom import destinations

PREFIX = "DARKROOM_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
# Environment variables of the project that are not settings, without the prefix: of this file, the
# SDK's programs, Docker Compose, and of benchmarks and tests.
OTHER_VARIABLES = frozenset(
    {
        *("CONFIG", "CA", "CREDENTIALS", "PROGRESS", "TOKEN", "URL"),
        *("DATA_VOLUME", "MODELS_VOLUME", "USER"),
        *("REACH_FOLDER", "TESTS", "TEST_DEVICE", "TEST_SYSTEM"),
    }
)
ALIKE = 0.75  # of two names, for one to be a slip of the other; "prot" and "port" are


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _network(value: object) -> object:
    """An address or a network by its text, so that one message says what is wrong with it."""
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"is no address or network: {error}") from None


def _some_machines(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if network.prefixlen == 0:
        raise ValueError(f"{network} is everybody; name the proxies' own addresses or networks")
    return network


ProxyNetwork = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(_network), AfterValidator(_some_machines)
]


def _named(host: str) -> str:
    if not host.strip():
        raise ValueError("is empty; 0.0.0.0 listens on all addresses")
    return host


ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@*]+")
DEFAULT_PORTS = re.compile(r"http://.*:80|https://.*:443")  # which browsers leave out


def _origin(text: str) -> str:
    """Check an origin: as browsers send it (RFC 6454, section 6.2), or `*` for all."""
    if text not in ("*", "null") and (not ORIGIN.fullmatch(text) or DEFAULT_PORTS.fullmatch(text)):
        raise ValueError(
            f"{text!r} is no origin as browsers send it: write SCHEME://HOST:PORT in small "
            "letters, without a path, and without the port if it is the scheme's own"
        )
    return text


class AuthSettings(Section):
    enabled: bool = True
    trust_loopback: bool = True
    host_names: tuple[str, ...] = ()
    pairing_code_s: float = Field(300.0, gt=0)
    requests_per_minute: int = Field(1200, ge=1)
    failures_per_minute: int = Field(20, ge=1)


class TlsSettings(Section):
    mode: Literal["off", "files", "local_ca"] = "off"
    certificate: Path | None = None
    key: Path | None = None


class DiscoverySettings(Section):
    enabled: bool = True


class WebSettings(Section):
    trusted_proxies: tuple[ProxyNetwork, ...] = ()
    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    threads: int = Field(16, ge=2, le=512)
    max_connections: int = Field(2000, ge=8)
    max_header_bytes: int = Field(16_384, ge=1024)
    header_timeout_s: float = Field(10.0, gt=0)
    body_timeout_s: float = Field(30.0, gt=0)
    max_upload_bytes: int = Field(32 * 2**20, ge=2**16)
    max_upload_pixels: int = Field(52_000_000, ge=2**14)
    max_body_bytes: int = Field(96 * 2**20, ge=2**16)
    decoders: int = Field(2, ge=1, le=16)
    decode_timeout_s: float = Field(20.0, gt=0)
    decode_memory_bytes: int = Field(2 * 2**30, ge=256 * 2**20)
    heartbeat_s: float = Field(15.0, gt=0)
    abandoned_s: float = Field(60.0, ge=0)


class QueueSettings(Section):
    lease_s: float = Field(30.0, gt=1)
    max_attempts: int = Field(3, ge=1)
    max_pending: int = Field(1000, ge=1)
    max_pending_per_client: int = Field(200, ge=1)
    max_in_flight_per_client: int = Field(12, ge=1)
    affinity_s: float = Field(20.0, ge=0)
    poll_s: float = Field(0.5, gt=0)
    database_timeout_s: float = Field(10.0, gt=0)
    flush_s: float = Field(0.2, gt=0)
    min_free_bytes: int = Field(256 * 2**20, ge=0)
    shutdown_timeout_s: float = Field(10.0, gt=0)


def _offload(value: object) -> object:
    """`group` in place of `sequential`, which it replaces."""
    if value == "sequential":
        warnings.warn("engine.offload: sequential is now group", FutureWarning, stacklevel=2)
        return "group"
    return value


def _installed(backend: str) -> str:
    if backend == "openvino" and find_spec("openvino") is None:
        raise ValueError("it needs openvino: `pip install 'darkroom-server[openvino]'`")
    return backend


class EngineSettings(Section):
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    backend: Annotated[Literal["torch", "openvino"], AfterValidator(_installed)] = "torch"
    openvino_cache_bytes: int = Field(16 * 2**30, ge=0)
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    stall_timeout_s: float = Field(300.0, ge=1)
    max_jobs_in_flight: int = Field(16, ge=1, le=64)
    max_batch_rows: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    memory_budget_bytes: Literal["auto"] | Annotated[int, Field(ge=2**20)] = "auto"
    offload: Annotated[Literal["none", "model", "group"], BeforeValidator(_offload)] = "none"
    layerwise_casting: Literal["none", "fp8"] = "none"
    quantize: Literal["none", "int8", "fp8"] = "none"
    vae_tile_side: int = Field(1536, ge=256, multiple_of=64)
    tiny_vae: bool = False
    fuse_qkv: bool = False
    deep_cache_interval: int = Field(1, ge=1, le=10)
    first_block_cache: float = Field(0.0, ge=0, le=1)
    keep_alive_s: float = Field(0.0, ge=0)
    preview_every_s: float = Field(0.3, gt=0)
    png_level: int = Field(6, ge=0, le=9)


class RetentionSettings(Section):
    max_age_days: float = Field(0.0, ge=0)
    max_pictures: int = Field(0, ge=0)
    max_bytes: int = Field(0, ge=0)
    preview_days: float = Field(30.0, ge=0)
    orphan_days: float = Field(7.0, ge=0)
    every_s: float = Field(600.0, gt=0)


DRIVER = "postgresql+psycopg"
SECRET_PREFIX = "whsec_"  # Standard Webhooks, "Signature scheme": 24 to 64 bytes in base64


def _prefix(text: str) -> str:
    try:
        destinations.parse_prefix(text)
    except destinations.DestinationError as error:
        raise ValueError(f"an allowed address {error}") from None
    return text


class WebhookSettings(Section):
    allow: tuple[Annotated[str, AfterValidator(_prefix)], ...] = ()
    secret: SecretStr | None = None
    timeout_s: float = Field(10.0, gt=0, le=300)
    retry_s: float = Field(5.0, gt=0)
    max_attempts: int = Field(10, ge=1)

    @field_validator("secret")
    @classmethod
    def _signs(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            signing_key(secret.get_secret_value())
        return secret


def signing_key(secret: str) -> bytes:
    """Decode the key of webhook signatures. `ValueError` if the secret is not of that standard."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f"a secret is {SECRET_PREFIX} and 24 to 64 random bytes in base64")
    return key


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


class ModelSettings(Section):
    default: str = "tintype"
    paths: tuple[Annotated[Path, AfterValidator(_absolute)], ...] = ()
    hashes: bool = True
    civitai_url: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+$")] = "https://civitai.com"
    civitai_token: SecretStr | None = None


WORKER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # in paths of files and of the API


class WorkerSettings(Section):
    name: Annotated[str, Field(pattern=f"^{WORKER_NAME}$")] | None = None


# What a URL's scheme needs besides fsspec, and the extra that has it.
SCHEMES = dict.fromkeys(("s3", "s3a"), ("s3fs", "s3"))
OF_ONE_PROCESS = ("memory", "data")  # web and worker would each have their own


class StorageSettings(Section):
    database_url: SecretStr | None = None
    files_url: SecretStr | None = None
    files_options: dict[str, Any] = Field({}, repr=False)

    @field_validator("database_url")
    @classmethod
    def _of_a_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        found = urlsplit(url.get_secret_value())
        if found.scheme not in ("postgresql", DRIVER) or len(found.path) < 2:
            raise ValueError(f"it has to be {DRIVER}://USER:PASSWORD@HOST/DATABASE")
        if find_spec("psycopg") is None:
            raise ValueError("it needs psycopg: `pip install 'darkroom-server[postgresql]'`")
        return SecretStr(found._replace(scheme=DRIVER).geturl())

    @field_validator("files_url")
    @classmethod
    def _of_files(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        scheme, separator, place = url.get_secret_value().partition("://")
        if not separator or not scheme or not place.strip("/"):
            raise ValueError("it has to be a URL such as s3://BUCKET/PREFIX")
        if scheme in OF_ONE_PROCESS:
            raise ValueError(f"web and workers cannot share {scheme}://")
        module, extra = SCHEMES.get(scheme, ("fsspec", "s3"))
        if find_spec(module) is None:
            raise ValueError(f"it needs {module}: `pip install 'darkroom-server[{extra}]'`")
        return SecretStr(url.get_secret_value().rstrip("/"))


EVERYWHERE = ("0.0.0.0", "::", "[::]")


def _not_everywhere(host: str) -> str:
    """One address, at which the boxes of a fleet find this machine."""
    if host.strip() in ("", *EVERYWHERE):
        raise ValueError(
            f"{host!r} is no address at which boxes find this machine; name one that only the "
            "fleet's boxes reach, such as one of a VPN"
        )
    return host


class FleetSettings(Section):
    address: Annotated[str, AfterValidator(_not_everywhere)] = "127.0.0.1"
    port: int = Field(7870, ge=1024, le=65535 - 100)
    database_host: Annotated[str, Field(pattern=r"^(/.+|[^/@\s]+)$")] | None = None
    files_environment: dict[str, SecretStr] = {}
    code_s: float = Field(600.0, gt=0)
    min_workers: int = Field(1, ge=0)
    max_workers: int = Field(1000, ge=1)
    jobs_per_worker: int = Field(4, ge=1)
    idle_s: float = Field(600.0, ge=0)


class InDataDir:
    """Attribute of the settings: the path of a file or folder in the data folder.

    In its name, {worker} is the name of the worker.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, settings: "Settings", owner: type["Settings"]) -> Path:
        named = "{" in self._name
        name = self._name.format(worker=settings.worker_name) if named else self._name
        return settings.data_dir / name


class Settings(BaseSettings):
    """Every setting with its default. `config.yaml` says what each one does."""

    model_config = SettingsConfigDict(
        env_prefix="DARKROOM_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
    )

    host: Annotated[str, AfterValidator(_named)] = "0.0.0.0"
    port: int = Field(7860, ge=1, le=65535)
    public_url: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+$")] | None = None
    data_dir: Path = Path("data")
    log_format: Literal["console", "json"] = "console"
    auth: AuthSettings = AuthSettings()
    tls: TlsSettings = TlsSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    web: WebSettings = WebSettings()
    queue: QueueSettings = QueueSettings()
    engine: EngineSettings = EngineSettings()
    models: ModelSettings = ModelSettings()
    retention: RetentionSettings = RetentionSettings()
    webhooks: WebhookSettings = WebhookSettings()
    storage: StorageSettings = StorageSettings()
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = 1
    worker: WorkerSettings = WorkerSettings()
    fleet: FleetSettings = FleetSettings()

    database_path: ClassVar = InDataDir("darkroom.db")
    pulse_path: ClassVar = InDataDir("worker-{worker}.pulse")
    worker_lock_path: ClassVar = InDataDir("worker-{worker}.lock")
    address_path: ClassVar = InDataDir("web.address")
    folder_id_path: ClassVar = InDataDir("folder.id")
    tls_dir: ClassVar = InDataDir("tls")
    hashes_path: ClassVar = InDataDir("hashes.json")
    pulls_lock_path: ClassVar = InDataDir("pulls.lock")
    signing_key_path: ClassVar = InDataDir("signing.key")
    membership_path: ClassVar = InDataDir("fleet.json")
    ray_token_path: ClassVar = InDataDir("ray.token")
    ray_tls_dir: ClassVar = InDataDir("ray-tls")
    webhook_secret_path: ClassVar = InDataDir("webhooks.secret")
    orphans_dir: ClassVar = InDataDir("orphans")
    openvino_dir: ClassVar = InDataDir("openvino")
    images_dir: ClassVar = InDataDir("images")
    models_dir: ClassVar = InDataDir("models")
    loras_dir: ClassVar = InDataDir("loras")
    embeddings_dir: ClassVar = InDataDir("embeddings")
    upscalers_dir: ClassVar = InDataDir("upscalers")

    @property
    def worker_name(self) -> str:
        """The name of this process's worker, or of the first one of several."""
        return self.worker.name or f"{host_name()}-0"

    def of_worker(self, number: int) -> "Settings":
        """The settings of one of several workers on this machine, the first of which is 0."""
        if number == 0:
            return self
        name = f"{self.worker.name or host_name()}-{number}"
        return self.model_copy(update={"worker": WorkerSettings(name=name)})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = YamlConfigSettingsSource(settings_cls, yaml_file=config_path())
        return (init_settings, env_settings, file)


def host_name() -> str:
    """The name of this machine, with the characters that a worker's name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip("._-")
    return name[:60] or "worker"


def config_path() -> Path | None:
    """The file named by `DARKROOM_CONFIG`, else `config.yaml` in the working directory, if any."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    here = Path("config.yaml")
    return here if here.is_file() else None


def load(overrides: dict[str, Any]) -> Settings:
    """Read the settings.

    Args:
        overrides: from the command line; None means not given.

    Raises:
        pydantic.ValidationError: a value is out of range, or a setting is not known.
        FileNotFoundError: the named configuration file is not there.
        ValueError: it is not YAML, or not a mapping; or an environment variable is a misspelt
            setting.
    """
    _check_variables()
    path = config_path()
    if path is not None:
        if path.is_dir() or not path.exists():
            raise FileNotFoundError(f"no configuration file at {path}")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not YAML: {error}") from None
        if not isinstance(content, dict | None):
            raise ValueError(f"{path} does not hold settings by name")
    given = {name: value for name, value in overrides.items() if value is not None}
    settings = Settings(**given)
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


def unknown_variables() -> list[str]:
    """`DARKROOM_*` environment variables that mean nothing here."""
    known = _variables()
    return sorted(name for name in os.environ if _is_ours(name) and _plain(name) not in known)


def _check_variables() -> None:
    """Raise ValueError for an environment variable that looks like a misspelt setting."""
    settings = _variables() - OTHER_VARIABLES
    for name in unknown_variables():
        close = difflib.get_close_matches(_plain(name), settings, 1, ALIKE)
        meant = close[0] if close else None
        for setting in sorted(settings):  # ENGINE_DEVICE, DEVICE: one underscore, or no section
            if _plain(name) in (setting.replace("__", "_"), setting.rpartition("__")[2]):
                meant = setting
        if meant is not None:
            raise ValueError(f"there is no setting {name}; did you mean {PREFIX}{meant}?")


def _variables() -> set[str]:
    """The environment variables that have a meaning, without the prefix, in upper case."""
    found = set(OTHER_VARIABLES)
    for name, field in Settings.model_fields.items():
        found.add(name.upper())
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= {f"{name}__{part}".upper() for part in field.annotation.model_fields}
    return found


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)


def _plain(name: str) -> str:
    return name.upper().removeprefix(PREFIX)
