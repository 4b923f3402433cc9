"""/images: bytes, thumbnails, formats, caching, deletion."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.images.decoder import load_readers
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


# --- decoding for browsers ---


def sideways_heic() -> bytes:
    """A photo of 64×48, half red and half blue, that is stored turned."""
    load_readers()
    photo = Image.new("RGB", (64, 48), "blue")
    photo.paste("red", (0, 0, 32, 48))
    exif = Image.Exif()
    exif[274] = 6  # to be turned right
    buffer = io.BytesIO()
    photo.transpose(Image.Transpose.ROTATE_90).save(buffer, "HEIF", exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_is_decoded_for_a_browser(server: RunningServer, kind: str) -> None:
    files = {"image": ("IMG_1.HEIC", sideways_heic(), "application/octet-stream")}

    answer = server.http.post("/decode", files=files, headers={"accept": f"image/{kind}"})

    assert answer.headers["content-type"] == f"image/{kind}"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format or "").lower() == kind
        assert picture.size == (64, 48)
        red, _, blue = picture.convert("RGB").getpixel((8, 24))  # type: ignore[misc]
        assert red > 200 > 60 > blue


def test_what_is_decoded_is_not_kept(server: RunningServer) -> None:
    before = sorted((server.data_dir / "images").rglob("up*"))
    body = {"image": base64.b64encode(sideways_heic()).decode()}

    assert server.http.post("/decode", json=body).headers["content-type"] == "image/png"
    assert sorted((server.data_dir / "images").rglob("up*")) == before


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"image": ""}, 422, "string_too_short"),
        ({}, 422, "missing"),
        ({"image": base64.b64encode(b"Dear diary").decode()}, 422, "no_picture_format"),
    ],
)
def test_what_is_no_picture_is_not_decoded(
    server: RunningServer, sent: dict[str, str], status: int, code: str
) -> None:
    refused = server.http.post("/decode", json=sent)

    assert refused.status_code == status
    (error,) = refused.json()["errors"]
    assert (error["pointer"], error["code"]) == ("#/image", code)


# --- transparent parts ---


def test_transparent_parts_that_become_white_are_noted(
    idle_server: RunningServer, photo: Path
) -> None:
    def notes(picture: bytes, mask: bytes | None = None) -> tuple[list[str], list[Any]]:
        files = {"image": picture} | ({"mask_image": mask} if mask else {})
        job = idle_server.http.post(
            "/inpaint" if mask else "/img2img",
            data={"prompt": "a cat"},
            files=files,
            headers={"prefer": "respond-async"},
        ).json()
        (*_, last) = idle_server.http.get(f"/jobs/{job['id']}").json()["coded_notes"] or [None]
        idle_server.http.delete(job["url"])
        return job["notes"], last

    hole, mask = io.BytesIO(), io.BytesIO()
    with Image.open(photo) as picture:
        holed = picture.convert("RGBA").resize((64, 64))
    holed.putalpha(Image.linear_gradient("L").resize((64, 64)))
    holed.save(hole, "PNG")
    Image.new("L", (64, 64), "white").save(mask, "PNG")
    text = "the transparent parts of the picture were made white"

    assert notes(hole.getvalue()) == (
        [text],
        {"text": text, "code": "transparent", "values": {}},
    )
    assert notes(hole.getvalue(), mask.getvalue()) == ([], None)
    assert notes(photo.read_bytes()) == ([], None)
