"""A real server whose pictures are in an S3 bucket, and what becomes of it while that is away."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from darkroom.storage.remote_files import RemoteFiles
from tests import s3
from tests.serving import RunningServer, running
from tests.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(s3_server: s3.Server) -> str:
    return s3_server.bucket()


@pytest.fixture(scope="module")
def remote(
    s3_server: s3.Server, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server whose files are in the bucket."""
    options = {
        "endpoint_url": s3_server.url,
        "config_kwargs": {"connect_timeout": 1, "read_timeout": 1},
    }
    settings = {
        "DARKROOM_STORAGE__FILES_URL": f"{bucket}/darkroom",
        "DARKROOM_STORAGE__FILES_OPTIONS": json.dumps(options),
        **s3.ENVIRONMENT,
    }
    with running(tmp_path_factory.mktemp("remote"), **settings) as started:
        yield started


def stored(server: s3.Server, bucket: str) -> set[str]:
    return set(RemoteFiles(f"{bucket}/darkroom", "images", server.options).names()) - {"clock"}


def test_pictures_go_through_web_as_from_a_folder(
    remote: RunningServer, s3_server: s3.Server, bucket: str, photo: Path
) -> None:
    made = remote.txt2img().json()
    (image,) = made["images"]
    sent = {"prompt": "a cat", "seed": 7, "num_inference_steps": 2, "strength": 0.6}
    edited = remote.http.post("/img2img", data=sent, files={"image": photo.read_bytes()}).json()

    whole = remote.http.get(image["url"])
    assert whole.status_code == 200
    assert whole.content.startswith(b"\x89PNG")
    tag = {"if-none-match": whole.headers["etag"]}
    assert remote.http.get(image["url"], headers=tag).status_code == 304
    assert remote.http.get(f"{image['url']}?w=32").headers["content-type"] == "image/webp"

    asked = {"prompt": "a red fox", "response_format": "url", "size": "64x64"}
    (link,) = remote.http.post("/v1/images/generations", json=asked).json()["data"]
    assert httpx2.get(link["url"]).content.startswith(b"\x89PNG")

    assert edited["status"] == "succeeded"
    assert image["id"] in stored(s3_server, bucket)
    assert remote.http.delete(image["url"]).status_code == 204
    assert image["id"] not in stored(s3_server, bucket)
    assert not list((remote.data_dir / "images").rglob("*-0"))


def test_while_the_store_is_away_callers_are_told_and_nothing_is_lost(
    remote: RunningServer, s3_server: s3.Server, photo: Path
) -> None:
    before = remote.txt2img(seed=1).json()["images"][0]["url"]
    answers: list[httpx2.Response] = []

    s3_server.stop()
    try:
        waiting = threading.Thread(target=lambda: answers.append(remote.txt2img(seed=2)))
        waiting.start()
        remote.wait_to_say("a picture cannot be stored yet")

        refused = remote.http.get(before)
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:darkroom:problem:files"
        assert int(refused.headers["retry-after"]) > 0
        sent = {"prompt": "a cat"}
        upload = remote.http.post("/img2img", data=sent, files={"image": photo.read_bytes()})
        assert (upload.status_code, "retry-after" in upload.headers) == (503, True)
        assert remote.http.get("/healthz").status_code == 200
        assert remote.http.get("/jobs").status_code == 200
    finally:
        s3_server.go_on()
    waiting.join()

    (answer,) = answers
    assert answer.json()["status"] == "succeeded"
    assert remote.http.get(answer.json()["images"][0]["url"]).status_code == 200
    assert remote.http.get(before).status_code == 200
    log = remote.log.read_text()
    assert s3.SECRET not in log + remote.http.get("/metrics").text
    eventually(lambda: not remote.http.get("/jobs?status=running").json()["jobs"])


def test_a_server_whose_bucket_is_missing_says_so_and_ends(
    s3_server: s3.Server, tmp_path: Path
) -> None:
    settings = {
        "DARKROOM_STORAGE__FILES_URL": "s3://no-such-bucket",
        "DARKROOM_STORAGE__FILES_OPTIONS": json.dumps({"endpoint_url": s3_server.url}),
    }
    with running(tmp_path, ready=None, **settings, **s3.ENVIRONMENT) as server:
        assert server.process.wait(60) == 1

    assert "make the bucket" in server.log.read_text()
