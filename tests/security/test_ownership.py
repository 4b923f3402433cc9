"""Callers see what is theirs, and of others' things not even that they exist."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.security.doors import client, issue
from tests.serving import RunningServer, parse_events

UNKNOWN = "0123456789abcdef01234567"
SMALL = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 2}


@dataclass(frozen=True)
class Possessions:
    """What Ada had made from a photograph.

    Attributes:
        job_id: of the job.
        picture_id: of its picture.
        upload_id: of the photograph.
    """

    job_id: str
    picture_id: str
    upload_id: str


@pytest.fixture(scope="module")
def ada(server: RunningServer) -> Iterator[httpx2.Client]:
    with client(server, issue(server, "Ada")["token"]) as http:
        yield http


@pytest.fixture(scope="module")
def bob(server: RunningServer) -> Iterator[httpx2.Client]:
    with client(server, issue(server, "Bob")["token"]) as http:
        yield http


@pytest.fixture(scope="module")
def hers(ada: httpx2.Client, photo: Path) -> Possessions:
    answer = ada.post(
        "/img2img",
        data={"prompt": "a pizza", "num_inference_steps": "4"},
        files={"image": photo.read_bytes()},
    )
    assert answer.status_code == 200, answer.text
    job = answer.json()
    upload: str = job["request"]["image"]
    return Possessions(job["id"], job["images"][0]["id"], upload.removeprefix("image:"))


def same_as_unknown(
    http: httpx2.Client, method: str, template: str, theirs: str, **body: Any
) -> None:
    """The answer for another's thing is the one for a thing that is not there."""
    real = http.request(method, template.format(theirs), **body)
    unknown = http.request(method, template.format(UNKNOWN), **body)
    assert real.status_code == unknown.status_code == 404
    told, expected = real.json(), unknown.json()
    for answer in (told, expected):
        del answer["request_id"]
    assert told["detail"].replace(theirs, UNKNOWN) == expected["detail"]
    assert {**told, "detail": ""} == {**expected, "detail": ""}


@pytest.mark.parametrize(
    ("method", "template"),
    [
        ("GET", "/jobs/{}"),
        ("DELETE", "/jobs/{}"),
        ("GET", "/jobs/{}/events"),
        ("GET", "/jobs/{}/timeline"),
    ],
)
def test_anothers_job_is_not_there(
    bob: httpx2.Client, hers: Possessions, method: str, template: str
) -> None:
    same_as_unknown(bob, method, template, hers.job_id)


@pytest.mark.parametrize("which", ["picture_id", "upload_id"])
@pytest.mark.parametrize(
    ("method", "template"),
    [("GET", "/images/{}"), ("GET", "/images/{}?w=64"), ("DELETE", "/images/{}")],
)
def test_anothers_picture_is_not_there(
    bob: httpx2.Client, hers: Possessions, which: str, method: str, template: str
) -> None:
    same_as_unknown(bob, method, template, getattr(hers, which))


@pytest.mark.parametrize("which", ["picture_id", "upload_id"])
def test_anothers_picture_is_no_source(bob: httpx2.Client, hers: Possessions, which: str) -> None:
    def ask(picture_id: str) -> httpx2.Response:
        return bob.post("/img2img", json={**SMALL, "image": f"image:{picture_id}"})

    theirs = getattr(hers, which)
    real, unknown = ask(theirs), ask(UNKNOWN)
    assert real.status_code == unknown.status_code == 422
    said = real.json()["errors"][0]["detail"].replace(theirs, UNKNOWN)
    assert said == unknown.json()["errors"][0]["detail"]


def test_lists_hold_ones_own_jobs(
    ada: httpx2.Client, bob: httpx2.Client, hers: Possessions
) -> None:
    assert hers.job_id in {job["id"] for job in ada.get("/jobs").json()["jobs"]}
    assert hers.job_id not in {job["id"] for job in bob.get("/jobs?limit=100").json()["jobs"]}
    cursor = bob.get("/jobs?cursor=999999&limit=100").json()["jobs"]
    assert {job["client"] for job in cursor} <= {"Bob"}


def test_event_streams_hold_ones_own_jobs(bob: httpx2.Client, hers: Possessions) -> None:
    job = bob.post("/txt2img", json=SMALL).json()
    seen = set()
    with bob.stream("GET", "/events", headers={"last-event-id": "0"}) as answer:
        for event in parse_events(answer.iter_lines()):
            seen.add(event["data"]["job_id"])
            if event["event"] == "succeeded" and event["data"]["job_id"] == job["id"]:
                break

    assert hers.job_id not in seen
    mine = {job["id"] for job in bob.get("/jobs?limit=100").json()["jobs"]}
    assert seen <= mine


def test_a_key_is_ones_own(ada: httpx2.Client, bob: httpx2.Client) -> None:
    headers = {"idempotency-key": "monday", "prefer": "respond-async"}
    first = ada.post("/txt2img", json=SMALL, headers=headers).json()
    second = bob.post("/txt2img", json={**SMALL, "prompt": "a wolf"}, headers=headers)

    assert second.status_code == 202
    assert second.json()["id"] != first["id"]


def test_jobs_carry_the_name_of_their_token(ada: httpx2.Client, hers: Possessions) -> None:
    assert ada.get(f"/jobs/{hers.job_id}").json()["client"] == "Ada"


def test_an_owner_sees_everything(server: RunningServer, hers: Possessions) -> None:
    with client(server, issue(server, "owner's laptop", "own")["token"]) as owner:
        assert owner.get(f"/jobs/{hers.job_id}").status_code == 200
        for picture_id in (hers.picture_id, hers.upload_id):
            assert owner.get(f"/images/{picture_id}?w=64").status_code == 200
        listed = owner.get("/jobs?limit=100").json()["jobs"]
        assert {"Ada"} <= {job["client"] for job in listed}


def test_the_same_name_is_not_the_same_caller(server: RunningServer, hers: Possessions) -> None:
    with client(server, issue(server, "Ada")["token"]) as namesake:
        same_as_unknown(namesake, "GET", "/jobs/{}", hers.job_id)
