"""What apps say to the server and need to hear, step by step, with a token and without trust.

Each conversation follows the client's own source: the addresses, bodies and fields it sends, and
the fields of the answers that it reads.
"""

import base64
import http.client
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.security.doors import PASSED_ON, client
from tests.serving import RunningServer
from tests.waiting import eventually

pytestmark = pytest.mark.slow

API = "/sdapi/v1"
Shape = Any  # a type, a list of one shape, or a dict of them; more fields than named may be there


@dataclass(frozen=True)
class Step:
    """One request, and what the client reads of its answer.

    Attributes:
        needs: the JSON's shape; None if the client looks at the status alone.
        token: whether the client sends it here.
    """

    method: str
    path: str
    body: Any = None
    needs: Shape = None
    token: bool = True


MODEL = {"title": str, "model_name": str}
SAMPLER = {"name": str, "aliases": [str], "options": dict}
PICTURES = {"images": [str], "parameters": dict, "info": str}

# SDAI 1.1.0 for Android and iOS: connects only if all of these succeed, then pings without a
# token. Sends seeds as strings.
SDAI = (
    Step("GET", "/", token=False),
    Step("GET", f"{API}/options", needs={"sd_model_checkpoint": str}),
    Step("GET", f"{API}/sd-models", needs=[MODEL | {"filename": str}]),
    Step("GET", f"{API}/samplers", needs=[SAMPLER]),
    Step("GET", f"{API}/loras", needs=[{"name": str, "path": str}]),
    Step("GET", f"{API}/hypernetworks", needs=[{"name": str, "path": str}]),
    Step("GET", f"{API}/embeddings", needs={"loaded": dict}),
    Step("GET", "/", token=False),
    Step("POST", f"{API}/options", {"sd_model_checkpoint": "tintype"}),
    Step(
        "POST",
        f"{API}/txt2img",
        {
            "prompt": "a red fox",
            "negative_prompt": "",
            "steps": 2,
            "cfg_scale": 7.0,
            "width": 512,
            "height": 512,
            "restore_faces": False,
            "seed": "7",
            "subseed": "",
            "subseed_strength": 0.0,
            "sampler_index": "Euler a",
            "alwayson_scripts": {},
            "enable_hr": False,
        },
        PICTURES,
    ),
    Step(
        "POST",
        f"{API}/img2img",
        {
            "init_images": ["PICTURE"],
            "include_init_images": False,
            "mask": None,
            "inpainting_mask_invert": 0,
            "inpaint_full_res_padding": 0,
            "inpainting_fill": 0,
            "inpaint_full_res": False,
            "mask_blur": 0,
            "denoising_strength": 0.75,
            "prompt": "a red fox",
            "negative_prompt": "",
            "steps": 4,
            "cfg_scale": 7.0,
            "width": 512,
            "height": 512,
            "restore_faces": False,
            "seed": "",
            "subseed": "",
            "subseed_strength": 0.0,
            "sampler_index": "DPM++ 2M Karras",
        },
        PICTURES,
    ),
    Step("POST", f"{API}/interrupt", {}, {}),
    Step("GET", "/", token=False),
)

# Open WebUI: sets the model by sending the whole of options back.
OPEN_WEBUI = (
    Step("GET", f"{API}/options", needs={"sd_model_checkpoint": str}),
    Step("GET", f"{API}/sd-models", needs=[MODEL]),
    Step("POST", f"{API}/options", "OPTIONS"),
    Step(
        "POST",
        f"{API}/txt2img",
        {
            "prompt": "a red fox",
            "batch_size": 2,
            "width": 512,
            "height": 512,
            "steps": 2,
            "negative_prompt": "a house",
            "cfg_scale": 6.5,
            "sampler_name": "DPM++ 2M",
            "scheduler": "Karras",
        },
        PICTURES,
    ),
)

# SillyTavern: its user's browser is not the one that asks, so it tells it what there is first.
SILLY_TAVERN = (
    Step("GET", f"{API}/options", needs={"sd_model_checkpoint": str}),
    Step("GET", f"{API}/sd-models", needs=[MODEL]),
    Step("GET", f"{API}/samplers", needs=[SAMPLER]),
    Step("GET", f"{API}/schedulers", needs=[{"name": str, "label": str}]),
    Step("GET", f"{API}/upscalers", needs=[{"name": str}]),
    Step("GET", f"{API}/latent-upscale-modes", needs=[{"name": str}]),
    Step("GET", f"{API}/sd-vae", needs=[{"model_name": str}]),
    Step("GET", f"{API}/sd-modules", needs=[{"model_name": str}]),
    Step("POST", f"{API}/options", {"sd_model_checkpoint": "tintype"}),
    Step("GET", f"{API}/progress", needs={"progress": float, "state": {"job_count": int}}),
    Step(
        "POST",
        f"{API}/txt2img",
        {
            "prompt": "a red fox",
            "negative_prompt": "a house",
            "sampler_name": "Euler",
            "scheduler": "normal",
            "steps": 2,
            "cfg_scale": 7,
            "width": 64,
            "height": 64,
            "restore_faces": False,
            "enable_hr": True,
            "hr_upscaler": "Latent",
            "hr_scale": 1.5,
            "hr_additional_modules": [],
            "denoising_strength": 0.7,
            "hr_second_pass_steps": 0,
            "seed": -1,
            "clip_skip": 1,
            "override_settings": {
                "CLIP_stop_at_last_layers": 1,
                "sd_vae": "Automatic",
                "forge_additional_modules": [],
            },
            "override_settings_restore_afterwards": True,
            "save_images": True,
            "send_images": True,
            "do_not_save_grid": False,
            "do_not_save_samples": False,
        },
        PICTURES,
    ),
    Step("GET", f"{API}/progress", needs={"progress": float, "state": {"job_count": int}}),
)

CONVERSATIONS = {"SDAI": SDAI, "Open WebUI": OPEN_WEBUI, "SillyTavern": SILLY_TAVERN}


def assert_shaped(value: Any, shape: Shape, place: str) -> None:
    """Everything that the client reads is there, and of the type that it reads it as."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), place
        for name, inner in shape.items():
            assert name in value, f"{place}.{name}"
            assert_shaped(value[name], inner, f"{place}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), place
        for index, item in enumerate(value):
            assert_shaped(item, shape[0], f"{place}[{index}]")
    else:
        assert isinstance(shape, type | UnionType | NoneType)
        assert isinstance(value, shape), place


@pytest.fixture
def stranger(locked_server: RunningServer) -> Iterator[httpx2.Client]:
    with client(locked_server) as http:
        yield http


@pytest.mark.parametrize("app", CONVERSATIONS)
def test_the_conversation_goes_as_the_app_expects(
    stranger: httpx2.Client, token: str, app: str
) -> None:
    last: dict[str, Any] = {"images": ["", ""]}
    options: Any = None
    for step in CONVERSATIONS[app]:
        body = step.body
        if body == "OPTIONS":
            body = options | {"sd_model_checkpoint": "tintype"}
        elif isinstance(body, dict) and "init_images" in body:
            body = body | {"init_images": [last["images"][0]]}
        who = ("", token) if step.token else None
        answer = stranger.request(step.method, step.path, json=body, auth=who)

        assert answer.status_code == 200, f"{step.path}: {answer.text}"
        if not step.token:
            continue
        told = answer.json()
        assert_shaped(told, step.needs or {}, step.path)
        if step.path.endswith("/options") and step.method == "GET":
            options = told
        if step.needs is PICTURES:
            last = told
            assert told["images"]
            for text in told["images"]:
                with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
                    assert picture.format == "PNG"
            info = json.loads(told["info"])
            assert isinstance(info["seed"], int)
            assert isinstance(info["subseed"], int)


@pytest.mark.parametrize("app", CONVERSATIONS)
def test_without_the_token_nothing_but_the_first_page_is_said(
    stranger: httpx2.Client, app: str
) -> None:
    for step in CONVERSATIONS[app]:
        answer = stranger.request(step.method, step.path, json=step.body)
        assert answer.status_code == (401 if step.token else 200), step.path
        if step.token:
            assert answer.json().keys() >= {"error", "detail", "body", "errors"}


def test_sillytavern_waits_until_nothing_is_at_work(stranger: httpx2.Client, token: str) -> None:
    """After setting a model it asks until `job_count` is 0; another's jobs are no reason."""
    who = ("", token)

    def state() -> dict[str, Any]:
        told: dict[str, Any] = stranger.get(f"{API}/progress", auth=who).json()
        return told

    assert (
        stranger.post(f"{API}/options", json={"sd_model_checkpoint": "tintype"}, auth=who).json()
        == {}
    )
    eventually(lambda: state()["progress"] == 0.0 and state()["state"]["job_count"] == 0)


def test_sillytaverns_other_source_speaks_openai(stranger: httpx2.Client, token: str) -> None:
    """It looks whether anybody is there with a bare OPTIONS, and without a token."""
    assert stranger.options("/v1/images/generations").is_success
    assert stranger.get("/v1/models").status_code == 401

    stranger.headers["authorization"] = f"Bearer {token}"
    (model,) = stranger.get("/v1/models").json()["data"]
    body = {
        "model": model["id"],
        "prompt": "a red fox",
        "size": "512x512",
        "n": 1,
        "response_format": "b64_json",
        "num_inference_steps": 2,
    }
    told = stranger.post("/v1/images/generations", json=body).json()

    with Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"]))) as picture:
        assert picture.format == "PNG"


def test_a_picture_whose_app_gave_up_is_kept(stranger: httpx2.Client, token: str) -> None:
    """SDAI waits 120 s and does not ask again."""
    bearer = {"authorization": f"Bearer {token}"}

    def jobs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = stranger.get("/jobs", headers=bearer).json()["jobs"]
        return found

    body = json.dumps({"prompt": "given up", "steps": 20, "seed": "7"})
    app = http.client.HTTPConnection(stranger.base_url.host, stranger.base_url.port)
    headers = {**PASSED_ON, **bearer, "content-type": "application/json"}
    app.request("POST", f"{API}/txt2img", body, headers)
    eventually(jobs)
    app.close()

    eventually(lambda: [job["status"] for job in jobs()] == ["succeeded"])
    assert jobs()[0]["images"]
