"""`darkroom join`: becomes a box of a fleet, and gets the models that it lacks."""

import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import darkroom
from darkroom.catalog.models import ModelCatalog
from darkroom.config import EVERYWHERE, Settings
from darkroom.errors import DarkroomError
from darkroom.ops.fleet import code, first_box, membership
from darkroom.ops.fleet.first_box import FirstBox
from darkroom.ops.fleet.handover import FileOfModel, Handover
from darkroom.ops.fleet.membership import Membership
from darkroom.storage.database import newest_schema
from darkroom.storage.files import sync

Say = Callable[[str], None]


class JoinError(DarkroomError):
    """This machine cannot join; says why and what to do."""


def join(
    settings: Settings, url: str, typed: str, name: str | None, address: str | None
) -> Membership:
    """Join the fleet of the server at a URL, and keep what it says.

    Args:
        typed: the code as a person typed it.
        name: of this box; its host's name by default.
        address: of this box, for Ray; by default the one from which it reaches the first box.

    Raises:
        DarkroomError: it cannot join; the message says what to do.
    """
    if settings.membership_path.exists():
        raise JoinError(
            f"this data folder has joined already; `darkroom join` without a code starts it, and "
            f"{settings.membership_path} is to be deleted before it joins another fleet"
        )
    secret, wanted = code.read(typed)
    url = url.rstrip("/")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    certificate, pinned = first_box.certificate_of(url, wanted)
    told = first_box.join(url, certificate, pinned, secret, name or _own_name())
    joined = Membership(
        url=url,
        certificate=certificate,
        pinned=pinned,
        address=address or _own_address(url),
        secret=told.secret or "",
        handover=told.model_copy(update={"secret": None}),
    )
    membership.write(settings, joined)
    check_version(told)
    return joined


def check_version(told: Handover) -> None:
    """Check that this box runs the program of the first one: they share a database.

    Raises:
        JoinError: it does not.
    """
    if told.database_schema != newest_schema():
        raise JoinError(
            f"the first box runs Darkroom {told.version} with schema {told.database_schema} of the "
            f"database, this one {darkroom.__version__} with {newest_schema()}; install the same "
            "version on both, then `darkroom join` goes on without a code"
        )


def refresh(settings: Settings, joined: Membership) -> Membership:
    """Ask the first box what it says now, and keep that.

    Raises:
        RemovedError: this box was removed.
        FirstBoxError: the first box cannot be asked.
    """
    told = FirstBox(joined).handover()
    if told == joined.handover:
        return joined
    changed = joined.model_copy(update={"handover": told})
    membership.write(settings, changed)
    return changed


def lacking(settings: Settings, joined: Membership) -> list[str]:
    """The names of models that the first box has and this one has not, sorted."""
    own = {entry.info.name for entry in ModelCatalog.of(settings).entries()}
    return sorted(set(FirstBox(joined).models().names) - own)


def copy_models(settings: Settings, joined: Membership, say: Say) -> None:
    """Copy the files of models that this box lacks, from the first one.

    A file arrives under a hidden name, goes on after an interruption at the byte where it stopped,
    and is compared by its SHA-256 before it gets its own name.

    Raises:
        JoinError: a file is not the same on both sides.
        FirstBoxError: the first box cannot be asked.
        OSError: a file cannot be written.
    """
    box = FirstBox(joined)
    for file in box.models().files:
        target = _inside(settings, file)
        if target.exists() and target.stat().st_size == file.bytes:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        say(f"{file.path}: {file.bytes / 2**20:.1f} MiB")
        arriving = target.with_name(f".{target.name}.joining")
        with arriving.open("ab") as written:
            for part in _parts(box, file.path, written.tell()):
                written.write(part)
            written.flush()
        sync(arriving)
        if _sha256(arriving) != box.sha256(file.path):
            arriving.unlink()
            raise JoinError(f"{file.path} did not arrive as it is on the first box; try again")
        arriving.replace(target)
        sync(target.parent)


def _parts(box: FirstBox, path: str, offset: int) -> Iterator[bytes]:
    while part := box.part(path, offset):
        offset += len(part)
        yield part


def _inside(settings: Settings, file: FileOfModel) -> Path:
    """Where a file belongs: in one of the folders of models, whatever the first box says."""
    place = Path(file.path)
    folders = (
        settings.models_dir,
        settings.loras_dir,
        settings.embeddings_dir,
        settings.upscalers_dir,
    )
    target = settings.data_dir / place
    if place.is_absolute() or ".." in place.parts or not any(map(target.is_relative_to, folders)):
        raise JoinError(f"the first box names a file outside the folders of models: {file.path}")
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_name() -> str:
    """This host's name, as a box's name may be."""
    name = socket.gethostname().lower().partition(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:32].strip("-") or "box"


def _own_address(url: str) -> str:
    """The address from which this machine reaches a server. Nothing is sent."""
    place = urlsplit(url)
    family, _, _, _, address = socket.getaddrinfo(
        place.hostname, place.port or 443, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        own: str = probe.getsockname()[0]
    if own in EVERYWHERE:
        raise JoinError("this machine has no address there; name one by --address")
    return own
