"""/images: bytes, thumbnails, formats, caching, deletion."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.serving import RunningServer


@pytest.fixture(scope="module")
def image(server: RunningServer) -> dict[str, str]:
    """A stored picture's record."""
    record: dict[str, str] = server.txt2img().json()["images"][0]
    return record


def test_a_picture_may_be_cached_for_ever(server: RunningServer, image: dict[str, str]) -> None:
    first = server.http.get(image["url"])
    again = server.http.get(image["url"], headers={"if-none-match": first.headers["etag"]})

    assert first.headers["etag"] == f'"{image["sha256"]}"'
    assert "immutable" in first.headers["cache-control"]
    assert "private" in first.headers["cache-control"]
    assert again.status_code == 304
    assert again.content == b""


def test_a_thumbnail_is_as_wide_as_asked(server: RunningServer, image: dict[str, str]) -> None:
    answer = server.http.get(image["url"] + "?w=48")

    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (48, 48)
    assert answer.headers["etag"] != server.http.get(image["url"]).headers["etag"]


def test_a_thumbnail_is_never_enlarged(server: RunningServer, image: dict[str, str]) -> None:
    answer = server.http.get(image["url"] + "?w=2000")

    assert Image.open(io.BytesIO(answer.content)).size == (128, 128)


@pytest.mark.parametrize("width", ["0", "-3", "4096", "wide"])
def test_a_thumbnail_has_a_sensible_width(
    server: RunningServer, image: dict[str, str], width: str
) -> None:
    answer = server.http.get(f"{image['url']}?w={width}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/w"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/webp", "WEBP"),
        ("image/jpeg", "JPEG"),
        ("image/avif,image/webp,*/*;q=0.8", "PNG"),  # a browser: the stored bytes will do
        ("*/*", "PNG"),
    ],
)
def test_the_accept_header_picks_the_format(
    server: RunningServer, image: dict[str, str], accept: str, kind: str
) -> None:
    answer = server.http.get(image["url"], headers={"accept": accept})

    assert Image.open(io.BytesIO(answer.content)).format == kind
    assert "Accept" in answer.headers["vary"]


def test_what_we_cannot_make_is_not_acceptable(
    server: RunningServer, image: dict[str, str]
) -> None:
    assert server.http.get(image["url"], headers={"accept": "video/mp4"}).status_code == 406


def test_a_deleted_picture_is_gone_from_disk_and_job(server: RunningServer) -> None:
    job = server.txt2img(seed=1234).json()
    url = job["images"][0]["url"]
    stored = next((server.data_dir / "images").rglob(job["images"][0]["id"]))

    assert server.http.delete(url).status_code == 204

    assert server.http.get(url).status_code == 404
    assert not stored.exists()
    assert server.http.get(job["url"]).json()["images"] == []


def test_a_source_that_a_waiting_job_needs_cannot_be_deleted(
    idle_server: RunningServer, photo: Path
) -> None:
    job = idle_server.http.post(
        "/img2img",
        data={"prompt": "a cat"},
        files={"image": photo.read_bytes()},
        headers={"prefer": "respond-async"},
    ).json()
    source = f"/images/{job['request']['image'].removeprefix('image:')}"

    assert idle_server.http.delete(source).status_code == 409
    idle_server.http.delete(job["url"])
    assert idle_server.http.delete(source).status_code == 204


@pytest.mark.parametrize("form", ["", "?w=64"])
def test_another_version_than_wanted_is_not_sent(server: RunningServer, form: str) -> None:
    image = server.txt2img().json()["images"][0]
    address = image["url"] + form
    etag = server.http.get(address).headers["etag"]

    assert server.http.get(address, headers={"if-match": etag}).status_code == 200
    refused = server.http.get(address, headers={"if-match": '"another"'})
    assert refused.status_code == refused.json()["status"] == 412
    assert refused.headers["content-type"] == "application/problem+json"
