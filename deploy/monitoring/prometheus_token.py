"""Creates a token for Prometheus and writes the address of this machine's server.

    python prometheus_token.py FOLDER

writes `token` and `target.json` into the folder. A valid token in the folder is kept. Run as
root, it opens the database as the owner of the data folder and writes only these files as root.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import alembic.command  # noqa: F401  # imported before the user changes, who may not read it

from darkroom import config
from darkroom.config import Settings
from darkroom.ops import discovery
from darkroom.requests import Scope
from darkroom.storage import database
from darkroom.storage.clients import Tokens

NAME = "prometheus"


def write_target(settings: Settings, folder: Path) -> None:
    """Write the files that Prometheus, another user, reads."""
    token = folder / "token"
    known = token.read_text().strip() if token.exists() else ""
    with _as_owner_of(settings.data_dir), _tokens(settings) as tokens:
        secret = known if tokens.find(known) else _renew(tokens)
    url = urlsplit(discovery.local_url(settings))
    target = {"targets": [url.netloc], "labels": {"__scheme__": url.scheme}}
    _write(folder / "target.json", json.dumps([target]))
    _write(token, secret)


def _renew(tokens: Tokens) -> str:
    known = next((device.id for device in tokens.devices() if device.name == NAME), None)
    if known is not None:
        tokens.revoke_all(known)
    return tokens.create(NAME, Scope.USE, known)[1]


@contextmanager
def _tokens(settings: Settings) -> Iterator[Tokens]:
    place = database.place_of(settings)
    database.migrate(place)
    opened = database.Database(place)
    try:
        yield Tokens(opened)
    finally:
        opened.close()


@contextmanager
def _as_owner_of(folder: Path) -> Iterator[None]:
    """Run the body as the user and group that own the folder, if this process is root."""
    if os.geteuid() != 0:
        yield
        return
    owner, groups = folder.stat(), os.getgroups()
    os.setgroups([])
    os.setresgid(owner.st_gid, owner.st_gid, 0)
    os.setresuid(owner.st_uid, owner.st_uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


if __name__ == "__main__":
    write_target(config.load({}), Path(sys.argv[1]))
