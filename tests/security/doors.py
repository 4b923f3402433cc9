"""Coming to a server as somebody else."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from darkroom.compat.openai.answers import CODES
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database
from tests.serving import RunningServer

# A caller on this machine is trusted; one whose request was passed on is a stranger.
PASSED_ON = {"x-forwarded-for": "203.0.113.9"}


@contextmanager
def client(
    server: RunningServer, token: str | None = None, **headers: str
) -> Iterator[httpx2.Client]:
    """A caller from elsewhere, with a token or without."""
    bearer = {} if token is None else {"authorization": f"Bearer {token}"}
    with httpx2.Client(
        base_url=server.url, headers={**PASSED_ON, **bearer, **headers}, timeout=120
    ) as http:
        yield http


def issue(server: RunningServer, name: str, scope: str = "use") -> dict[str, Any]:
    """A token, made by the owner: id, name, scope, token."""
    answer = server.http.post("/tokens", json={"name": name, "scope": scope})
    assert answer.status_code == 201, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


def new_code(server: RunningServer, device: str | None = None, **fields: str) -> str:
    """A pairing code, made by the owner, for a new device or one that is known."""
    answer = server.http.post("/pair/codes", json={"device": device, **fields})
    assert answer.status_code == 201, answer.text
    assert answer.json()["device"] == device
    code: str = answer.json()["code"]
    return code


def pair(server: RunningServer, code: str, name: str = "iPhone") -> dict[str, Any]:
    """What a phone gets for a code: id, device, name, scope, token."""
    with client(server) as phone:
        answer = phone.post("/pair", json={"code": code, "name": name})
    assert answer.status_code == 200, answer.text
    paired: dict[str, Any] = answer.json()
    return paired


@contextmanager
def tokens_in(data_dir: Path) -> Iterator[Tokens]:
    """The tokens of a server, as its command line reaches them."""
    database = Database(data_dir / "darkroom.db")
    yield Tokens(database)
    database.close()


def jobs_in(data_dir: Path) -> int:
    """How many jobs a server was given, read beside it."""
    with sqlite3.connect(data_dir / "darkroom.db") as connection:
        count: int = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    connection.close()
    return count


def assert_refused(answer: httpx2.Response, status: int, kind: str) -> None:
    """The one error shape, or below others' addresses the shape of theirs."""
    assert answer.status_code == status, answer.text
    if answer.url.path.startswith("/v1/"):
        assert answer.headers["content-type"] == "application/json"
        error = answer.json()["error"]
        assert error["code"] == CODES[kind]
        assert error["message"]
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:darkroom:problem:{kind}"
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
