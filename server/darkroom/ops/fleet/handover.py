"""What a box gets from the first one: where database, files and Ray are, and how to get in."""

import ipaddress
import json
import os
import secrets
from collections.abc import Mapping

from pydantic import Field
from sqlalchemy.engine import URL, make_url

import darkroom
from darkroom.config import PREFIX, Section, Settings
from darkroom.errors import DarkroomError
from darkroom.requests import Schema
from darkroom.storage.database import newest_schema
from darkroom.storage.files import write_key

# What boto, and so every program that reaches S3, takes from the environment.
FILES_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
)
# Sections of settings by which a picture, or the queue, would differ from box to box.
SHARED = {"queue": None, "engine": ("png_level", "preview_every_s"), "models": ("default",)}


class NoFleetError(DarkroomError):
    """These settings are of one box alone; says what to set."""


class JoinRequest(Schema):
    """A box that wants to join."""

    code: str = Field(max_length=32)
    name: str = Field(max_length=64)


class Handover(Schema):
    """What a box is told when it joins, and whenever it asks again.

    Attributes:
        name: the box's own.
        secret: of its role, and of its requests; only when it joins.
        version, database_schema: the program's on the first box, which the others must have too.
        environment: of its workers, settings and the keys of the files' place.
        ray_address: HOST:PORT of Ray's head.
        ray_token: without it Ray takes nothing.
    """

    name: str
    secret: str | None = None
    version: str
    database_schema: str
    environment: dict[str, str]
    ray_address: str
    ray_token: str


class FileOfModel(Schema):
    """A file of a model, LoRA, embedding or upscaler, by its path in the data folder."""

    path: str
    bytes: int


class HeadModels(Schema):
    """What the first box has, to compare with."""

    names: tuple[str, ...]
    files: tuple[FileOfModel, ...]


def check(settings: Settings) -> None:
    """Check that several boxes can share what these settings name.

    Raises:
        NoFleetError: they cannot.
    """
    storage = settings.storage
    if storage.database_url is None:
        raise NoFleetError(
            "boxes share a PostgreSQL database: set storage.database_url (docs/scale-out.md)"
        )
    if storage.files_url is None:
        raise NoFleetError(
            "boxes share a place for pictures: set storage.files_url, such as s3://BUCKET/PREFIX "
            "(docs/scale-out.md)"
        )
    host = database_for(settings, "role", "secret").host or ""
    if settings.fleet.database_host is None and is_of_this_machine(host):
        raise NoFleetError(
            "storage.database_url names this machine by an address that other boxes do not reach; "
            "set fleet.database_host to one that they do"
        )


def is_of_this_machine(host: str) -> bool:
    """Whether an address, a name, or nothing for a socket, leads to this machine from anywhere."""
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def database_for(settings: Settings, role: str, secret: str) -> URL:
    """The database's URL for a box's role."""
    assert settings.storage.database_url is not None
    url = make_url(settings.storage.database_url.get_secret_value())
    url = url.set(username=role, password=secret)
    host = settings.fleet.database_host
    if host is None:
        return url
    url = url.difference_update_query(["host", "port"])
    if host.startswith("/"):  # the folder of a socket
        return url.set(host=None).update_query_dict({"host": host})
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, ""
    return url.set(host=name.strip("[]"), port=int(port) if port else url.port)


def handover(
    settings: Settings,
    name: str,
    role: str,
    secret: str,
    environment: Mapping[str, str] = os.environ,
) -> Handover:
    """What a box is told. `environment` is this process's."""
    storage = settings.storage
    assert storage.files_url is not None
    database = database_for(settings, role, secret)
    given = {
        f"{PREFIX}STORAGE__DATABASE_URL": database.render_as_string(hide_password=False),
        f"{PREFIX}STORAGE__FILES_URL": storage.files_url.get_secret_value(),
    }
    if storage.files_options:
        given[f"{PREFIX}STORAGE__FILES_OPTIONS"] = json.dumps(storage.files_options)
    for section, names in SHARED.items():
        given |= _changed(section, getattr(settings, section), names)
    own = settings.fleet.files_environment
    if own:
        given |= {variable: value.get_secret_value() for variable, value in own.items()}
    else:
        given |= {key: environment[key] for key in FILES_VARIABLES if key in environment}
    return Handover(
        name=name,
        version=darkroom.__version__,
        database_schema=newest_schema(),
        environment=given,
        ray_address=f"{settings.fleet.address}:{settings.fleet.port}",
        ray_token=ray_token(settings),
    )


def _changed(section: str, values: Section, names: tuple[str, ...] | None) -> dict[str, str]:
    """The environment variables of a section's settings that differ from their defaults."""
    default = type(values)()
    return {
        f"{PREFIX}{section}__{name}".upper(): str(getattr(values, name))
        for name in names or type(values).model_fields
        if getattr(values, name) != getattr(default, name)
    }


def ray_token(settings: Settings) -> str:
    """The secret of all nodes of Ray, made when it is first needed."""
    path = settings.ray_token_path
    if not path.exists():
        new_ray_token(settings)
    return path.read_text()


def new_ray_token(settings: Settings) -> None:
    """Replace Ray's token: `darkroom fleet` starts Ray again with it, boxes ask for it."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    write_key(settings.ray_token_path, secrets.token_hex(32).encode())
