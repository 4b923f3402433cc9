"""A data folder of the release before request types by task goes on as it was."""

import base64
import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.storage import database
from tests import upscalers
from tests.conftest import DATA
from tests.queue.test_migrations import bring
from tests.serving import RunningServer, running

EARLIER = DATA / "v0005"
EXPECTED: dict[str, Any] = json.loads((EARLIER / "expected.json").read_text())
JOBS: list[dict[str, Any]] = EXPECTED["jobs"]
SUCCEEDED = [job for job in JOBS if job["status"] == "succeeded"]
OF_THE_MOMENT = {"eta_seconds", "position", "webhook"}


def unpack(folder: Path) -> Path:
    """The data folder, in `folder`."""
    with tarfile.open(EARLIER / "data.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "data"


def stored_requests(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT id, request FROM jobs").fetchall()
    return {job_id: json.loads(request) for job_id, request in rows}


def test_the_way_back_restores_every_request(tmp_path: Path) -> None:
    path = unpack(tmp_path) / "darkroom.db"
    before = stored_requests(path)
    database.migrate(path)
    after = stored_requests(path)
    bring(path, "0005")

    assert {job["id"]: job["request"] for job in JOBS} == after
    assert stored_requests(path) == before


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on the data folder, without a worker."""
    folder = unpack(tmp_path_factory.mktemp("earlier"))
    upscalers.save(folder / "upscalers", "tiny-x2")
    with running(folder, process="web") as started:
        yield started


@pytest.fixture(scope="module")
def going_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on the data folder, which has ended what it found queued."""
    folder = unpack(tmp_path_factory.mktemp("going_on"))
    upscalers.save(folder / "upscalers", "tiny-x2")
    with running(folder) as started:
        for job in JOBS:
            if job["status"] == "queued":
                assert started.finished(job["id"])["status"] == "succeeded"
        yield started


def as_then(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What a job is told to be today, of what was told then. Its error and images may say more."""
    told = {name: now[name] for name in before.keys() - OF_THE_MOMENT}
    told["images"] = [
        {name: image[name] for name in earlier}
        for image, earlier in zip(now["images"], before["images"], strict=True)
    ]
    if before["error"]:
        told["error"] = {name: now["error"][name] for name in before["error"]}
    return told


def test_ended_jobs_are_told_as_before(earlier: RunningServer) -> None:
    listed = earlier.http.get("/jobs", params={"limit": 50}).json()["jobs"]
    assert [job["id"] for job in listed] == [job["id"] for job in JOBS]

    for now, before in zip(listed, JOBS, strict=True):
        if before["status"] != "queued":
            names = before.keys() - OF_THE_MOMENT
            assert as_then(now, before) == {name: before[name] for name in names}
            events = earlier.http.get(f"/jobs/{now['id']}/events").text
            assert events.count("\nevent: ") == EXPECTED["events"][now["id"]]


def test_images_are_there(earlier: RunningServer) -> None:
    for image in (image for job in SUCCEEDED for image in job["images"]):
        data = earlier.http.get(image["url"]).content
        assert hashlib.sha256(data).hexdigest() == image["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("job", SUCCEEDED, ids=lambda job: f"{job['task']}-{job['id'][:4]}")
def test_a_request_makes_its_pictures_again(going_on: RunningServer, job: dict[str, Any]) -> None:
    answer = going_on.http.post(f"/{job['task']}", json=job["request"])
    assert answer.status_code == 200, answer.text
    again = answer.json()

    assert again["request"] == job["request"]
    for new, old in zip(again["images"], job["images"], strict=True):
        assert_alike(going_on.http.get(new["url"]).content, going_on.http.get(old["url"]).content)


def assert_alike(ours: bytes, theirs: bytes) -> None:
    """The same metadata, and pixels that differ by no more than another CPU makes them."""
    with Image.open(io.BytesIO(ours)) as mine, Image.open(io.BytesIO(theirs)) as other:
        # JPEG and WebP of this version carry their settings, which those of then did not.
        added = {"exif"} - other.info.keys()
        assert {key: mine.info[key] for key in mine.info if key not in added} == other.info
        difference = np.asarray(mine, dtype=np.int16) - np.asarray(other, dtype=np.int16)
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("key", EXPECTED["keys"])
def test_a_key_finds_its_job(earlier: RunningServer, key: str) -> None:
    sent = EXPECTED["keys"][key]
    files = {name: base64.b64decode(data) for name, data in sent.get("files", {}).items()}
    body: dict[str, Any] = {"json": sent["json"]} if "json" in sent else {"data": sent["form"]}
    if files:
        body["files"] = files
    before = len(earlier.http.get("/jobs", params={"limit": 50}).json()["jobs"])
    answer = earlier.http.post(sent["path"], headers={"idempotency-key": key}, **body)

    assert answer.status_code == 200, answer.text
    with closing(sqlite3.connect(earlier.data_dir / "darkroom.db")) as connection:
        query = "SELECT id FROM jobs WHERE idempotency_key = ?"
        assert connection.execute(query, (key,)).fetchall() == [(answer.json()["id"],)]
    assert len(earlier.http.get("/jobs", params={"limit": 50}).json()["jobs"]) == before


def test_tokens_and_options_are_kept(earlier: RunningServer) -> None:
    tokens = earlier.http.get("/tokens").json()["tokens"]
    assert "Ada's phone" in [token["name"] for token in tokens]
    options = earlier.http.get("/sdapi/v1/options").json()
    assert options["CLIP_stop_at_last_layers"] == 2


def test_the_information_of_a_png_is_read(earlier: RunningServer) -> None:
    image = base64.b64encode((EARLIER / "image.png").read_bytes()).decode()
    told: dict[str, Any] = earlier.http.post("/sdapi/v1/png-info", json={"image": image}).json()

    first = JOBS[-1]
    native = json.loads(told["items"]["darkroom"])
    assert native == first["request"] | {"task": first["task"], "index": 0}
    assert told["info"].startswith(first["request"]["prompt"])
