"""Which servers run on this machine, so that commands find theirs from any folder.

Web writes its address into the data folder, and the folder's path into its user's state folder. A
lock in the data folder says whether it still runs, so what a killed one left does no harm.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from darkroom.config import Settings, TlsSettings
from darkroom.errors import DarkroomError
from darkroom.storage import database

ADDRESS = ("host", "port", "public_url", "tls")  # the settings that say where it is


class NoServerError(DarkroomError):
    """There is no server, or it is not clear which one is meant."""


@contextlib.contextmanager
def announced(settings: Settings) -> Iterator[None]:
    """Context of the web process in which commands find it. It holds the lock of the folder.

    Where nothing can be written, commands need the server's options.
    """
    address = settings.model_dump_json(include=set(ADDRESS))
    with contextlib.ExitStack() as stack:
        for path, text in (
            (settings.address_path, address),
            (_entry(settings.data_dir), str(settings.data_dir)),
        ):
            with contextlib.suppress(OSError, RuntimeError):  # a user may have no home
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                stack.callback(_remove, path)
        yield


def find(settings: Settings, *, named: bool) -> Settings:
    """The settings with the data folder and address of the server that is meant.

    That is the one of this data folder or, unless the folder was `named`, the only one that this
    user runs. If none runs, the data folder must be there.

    Raises:
        NoServerError: none runs and there is no data, or several run.
    """
    folder = settings.data_dir
    if not (named or is_running(folder)):
        found = [path for path in _known() if is_running(path)]
        if len(found) > 1:
            folders = ", ".join(map(str, found))
            raise NoServerError(f"several servers run here; say which by --data-dir: {folders}")
        folder = next(iter(found), folder)
    found_settings = settings.model_copy(update={"data_dir": folder})
    if is_running(folder):
        return found_settings.model_copy(update=_address(found_settings))
    if settings.storage.database_url is None and not settings.database_path.exists():
        raise NoServerError(
            f"no server runs here, and {folder} holds no data of one; start it with `darkroom "
            "serve`, or name its folder by --data-dir"
        )
    return settings


def is_running(folder: Path) -> bool:
    """Whether a web process runs on a data folder."""
    return database.is_held(folder / "web.lock")


def _address(settings: Settings) -> dict[str, object]:
    try:
        address = json.loads(settings.address_path.read_text())
        tls = TlsSettings.model_validate(address["tls"])
        return {name: address[name] for name in ADDRESS} | {"tls": tls}
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return {}  # of an older version, or not written


def _entry(folder: Path) -> Path:
    return _state() / sha256(os.fsencode(folder)).hexdigest()[:16]


def _known() -> list[Path]:
    """The data folders of servers that this user started and that did not stop in order."""
    with contextlib.suppress(OSError, RuntimeError):
        return sorted(Path(entry.read_text()) for entry in _state().iterdir())
    return []


def _state() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "darkroom" / "servers"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
