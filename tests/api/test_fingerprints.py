"""Fingerprints tell a request that is sent again from another one with the same key."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from darkroom.api.prepare import fingerprint
from darkroom.requests import Img2ImgRequest, Txt2ImgRequest
from tests.serving import RunningServer


class LaterRequest(Txt2ImgRequest):
    """A request of some later version, with fields more."""

    guidance_rescale: float = 0.0
    controls: tuple[str, ...] = ()
    expand: int | None = None


def of(asked: Txt2ImgRequest, **files: bytes) -> str:
    return fingerprint(asked, files)


def test_a_field_at_its_default_changes_no_fingerprint() -> None:
    plain = of(Txt2ImgRequest(prompt="a fox"))

    assert of(Txt2ImgRequest(prompt="a fox", num_images=1, loras=[], seed=None)) == plain
    assert of(LaterRequest(prompt="a fox")) == plain
    assert of(LaterRequest(prompt="a fox", guidance_rescale=0, controls=())) == plain


def test_every_other_difference_does() -> None:
    image = {"prompt": "a fox", "image": "file part"}
    asked = (
        of(Txt2ImgRequest(prompt="a fox")),
        of(Txt2ImgRequest(prompt="a Fox")),
        of(Txt2ImgRequest(prompt="a fox", seed=0)),
        of(LaterRequest(prompt="a fox", guidance_rescale=0.5)),
        fingerprint(Img2ImgRequest(**image), {"image": b"one"}),
        fingerprint(Img2ImgRequest(**image), {"image": b"two"}),
        fingerprint(Img2ImgRequest(**image), {}),
    )

    assert len(set(asked)) == len(asked)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """Rows hold it for as long as they are kept."""
    asked = Txt2ImgRequest(prompt="ein Bär", seed=7, guidance_scale=5)
    expected = "58a0a075b94810dcd573acd05b68299d6dc05bf93205f4c025455ea518a5fd89"

    assert of(asked) == expected


@pytest.mark.parametrize("sent", ["json", "form"])
def test_a_key_from_before_fingerprints_ignored_defaults_finds_its_job(
    idle_server: RunningServer, photo: Path, sent: str
) -> None:
    """The fingerprints are those that the server stored for these very bodies then."""
    headers = {"idempotency-key": f"from before, {sent}", "prefer": "respond-async"}

    def post(**changed: Any) -> httpx2.Response:
        if sent == "json":
            body = {"prompt": "ein Bär", "seed": 7, "guidance_scale": 5, **changed}
            text = json.dumps(body, ensure_ascii=False).encode()
            kind = {"content-type": "application/json"}
            return idle_server.http.post("/txt2img", content=text, headers={**headers, **kind})
        form = {"prompt": "a pizza", "loras": "[]", **changed}
        files = {"image": photo.read_bytes()}
        return idle_server.http.post("/img2img", data=form, files=files, headers=headers)

    old = {
        "json": "6183c02d9a4c2aba9bdf2afba61e5846dfc983868cb60f1a1f52451d88d31816",
        "form": "f02952513a0794384771009a79664f81192130dade2cac5505a8e57d0fbb71fb",
    }[sent]
    first = post().json()["id"]
    with closing(sqlite3.connect(idle_server.data_dir / "darkroom.db")) as database, database:
        change = "UPDATE jobs SET fingerprint = ? WHERE id = ?"
        assert database.execute(change, (old, first)).rowcount == 1

    assert post().json()["id"] == first
    assert post(prompt="another").status_code == 422


def test_a_key_finds_its_job_however_the_same_is_said(idle_server: RunningServer) -> None:
    headers = {"idempotency-key": "in other words", "prefer": "respond-async"}

    def post(text: str) -> str:
        kind = {"content-type": "application/json"}
        answer = idle_server.http.post("/txt2img", content=text, headers={**headers, **kind})
        job_id: str = answer.json()["id"]
        return job_id

    assert post('{"prompt": "a fox", "seed": 7}') == post(
        '{"seed":7,"exact":false,"prompt":"a fox"}'
    )
