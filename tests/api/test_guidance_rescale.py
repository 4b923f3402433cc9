"""`guidance_rescale` is a field of every API, and of the SDK."""

from pathlib import Path
from typing import Any

import pytest

from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.models import ModelCatalog
from darkroom.compat.a1111.fields import Settings
from darkroom.compat.a1111.translate import translate
from darkroom.compat.ignored import Ignored
from darkroom_client import Client
from tests.engine import tiny
from tests.serving import RunningServer

SMALL = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 2}


def newest(server: RunningServer) -> dict[str, Any]:
    """The request of the newest job."""
    request: dict[str, Any] = server.http.get("/jobs?limit=1").json()["jobs"][0]["request"]
    return request


def test_it_changes_the_picture_and_is_told_with_the_job(server: RunningServer) -> None:
    plain = server.txt2img(guidance_scale=7.5).json()
    rescaled = server.txt2img(guidance_scale=7.5, guidance_rescale=0.7).json()
    form = server.http.post(
        "/txt2img",
        files={name: (None, str(v)) for name, v in SMALL.items()}
        | {"guidance_scale": (None, "7.5"), "guidance_rescale": (None, "0.7")},
    ).json()

    assert rescaled["request"]["guidance_rescale"] == 0.7
    assert rescaled["images"][0]["sha256"] == form["images"][0]["sha256"]
    assert rescaled["images"][0]["sha256"] != plain["images"][0]["sha256"]


@pytest.mark.parametrize("value", [-0.1, 1.1, "much"])
def test_it_is_between_zero_and_one(server: RunningServer, value: object) -> None:
    answer = server.txt2img(guidance_rescale=value)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/guidance_rescale"]


def test_a1111s_api_takes_it_at_the_top_level(server: RunningServer) -> None:
    body = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64, "guidance_rescale": 0.7}

    answer = server.http.post("/sdapi/v1/txt2img", json=body)

    assert answer.status_code == 200, answer.text
    assert answer.headers.get("x-ignored-fields", "") == ""
    assert newest(server)["guidance_rescale"] == 0.7


def test_a1111s_api_draws_without_it_where_a_model_cannot(tmp_path: Path) -> None:
    tiny.lcm(tmp_path / "models" / "distilled")
    catalog = ModelCatalog(tmp_path / "models", "distilled")
    adapters = AdapterCatalog(tmp_path / "loras", tmp_path / "embeddings")

    asked = Settings(guidance_rescale=0.7)

    translated = translate(asked, catalog, adapters, {}, Ignored())

    assert "guidance_rescale" not in translated.values
    assert "guidance_rescale" in translated.ignored.names


def test_openais_api_takes_it_as_extra_body(server: RunningServer) -> None:
    body = {**SMALL, "size": "64x64", "guidance_rescale": 0.7}

    answer = server.http.post("/v1/images/generations", json=body)

    assert answer.status_code == 200, answer.text
    assert newest(server)["guidance_rescale"] == 0.7


def test_the_sdk_takes_it(server: RunningServer) -> None:
    with Client(server.url) as client:
        client.txt2img("a red fox", guidance_rescale=0.7, num_inference_steps=2).wait()

    assert newest(server)["guidance_rescale"] == 0.7
