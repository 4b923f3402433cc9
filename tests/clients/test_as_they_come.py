"""Other people's programs as they are installed: on the server's machine, and from the network.

Each sends what its own source sends (docs/compatibility.md, "What each client needs"): the headers
that it adds without being told anything, and those that it adds for a token. Where a program asks
with OpenAI's SDK for Python or with webuiapi, that library asks here too.
"""

import asyncio
import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import webuiapi

from tests.effort import sampled
from tests.security.doors import PASSED_ON, assert_refused, issue
from tests.serving import RunningServer

PAGE = Path(__file__).parents[2] / "docs/compatibility.md"
TABLE = re.compile(r"## What each client needs\n.*?\n\|---[^\n]*\n(.*?)\n\n", re.DOTALL)

A1111 = "/sdapi/v1"
PICTURE = {"prompt": "a red fox", "steps": 1, "width": 64, "height": 64}
IMAGE = {"prompt": "a red fox", "size": "64x64", "num_inference_steps": 1}

Headers = dict[str, str]


@dataclass(frozen=True)
class Call:
    """A request: its path, and JSON or the fields of a form with the picture to edit."""

    path: str
    json: Any = None
    form: dict[str, str] | None = None


OPTIONS = Call(f"{A1111}/options")
TXT2IMG = Call(f"{A1111}/txt2img", PICTURE)
GENERATE = Call("/v1/images/generations", IMAGE)
EDIT = Call("/v1/images/edits", form={**IMAGE, "num_inference_steps": "2"})
MODELS = Call("/v1/models")


def nothing(_token: str = "") -> Headers:
    return {}


def basic(name: str) -> Callable[[str], Headers]:
    """Basic, of what stands in a field for `user:password`."""

    def of(token: str) -> Headers:
        typed = name.format(token=token)
        return {"authorization": f"Basic {base64.b64encode(typed.encode()).decode()}".strip()}

    return of


def bearer(key: str = "{token}") -> Callable[[str], Headers]:
    def of(token: str) -> Headers:
        return {"authorization": f"Bearer {key.format(token=token)}".strip()}

    return of


def azure(key: str = "{token}") -> Callable[[str], Headers]:
    def of(token: str) -> Headers:
        return {"api-key": key.format(token=token)}

    return of


def both(key: str = "{token}") -> Callable[[str], Headers]:
    """OpenAI's SDK for JavaScript with `defaultHeaders` of Azure."""

    def of(token: str) -> Headers:
        return {**javascript(key)(token), **azure(key)(token)}

    return of


def javascript(key: str = "{token}") -> Callable[[str], Headers]:
    """OpenAI's SDK for JavaScript."""

    def of(token: str) -> Headers:
        return {
            "accept": "application/json",
            "user-agent": "OpenAI/JS 6.49.0",
            "x-stainless-retry-count": "0",
            "x-stainless-lang": "js",
            "x-stainless-package-version": "6.49.0",
            "x-stainless-os": "Linux",
            "x-stainless-arch": "x64",
            "x-stainless-runtime": "node",
            "x-stainless-runtime-version": "v24.11.0",
            **bearer(key)(token),
        }

    return of


@dataclass(frozen=True)
class Program:
    """A program's requests.

    Attributes:
        as_it_comes: headers before anybody has typed anything, or what it forces one to type.
        with_token: headers once it was given a token, in the form that the page says.
        calls: what it asks for.
    """

    as_it_comes: Callable[[str], Headers]
    with_token: Callable[[str], Headers]
    calls: tuple[Call, ...]


PROGRAMS = {
    # backend/open_webui/routers/images.py, `get_automatic1111_api_auth`
    "Open WebUI, engine Automatic1111": Program(
        basic(""), basic("me:{token}"), (OPTIONS, Call(f"{A1111}/sd-models"), TXT2IMG)
    ),
    "Open WebUI, engine OpenAI": Program(bearer(""), bearer(), (GENERATE, EDIT)),
    # src/util.js, `getBasicAuthHeader`
    "SillyTavern, source AUTOMATIC1111": Program(
        basic(""), basic("me:{token}"), (OPTIONS, Call(f"{A1111}/samplers"), TXT2IMG)
    ),
    # api/app/clients/tools/structured/OpenAIImageTools.js
    "LibreChat, OpenAI image tools": Program(
        javascript("user_provided"), javascript(), (GENERATE, EDIT)
    ),
    "LibreChat, OpenAI image tools in Azure mode": Program(
        both("placeholder"), both(), (Call("/v1/images/generations?api-version=1", IMAGE),)
    ),
    "LibreChat, edits in Azure mode": Program(
        azure("placeholder"), azure(), (Call("/v1/images/edits?api-version=1", form=EDIT.form),)
    ),
    # StableDiffusion.js posts with axios, which makes Basic of a name and password in an address.
    "LibreChat, Stable Diffusion tool": Program(nothing, basic("me:{token}"), (TXT2IMG,)),
    "OpenAI SDK for JavaScript": Program(javascript("sk-x"), javascript(), (MODELS, GENERATE)),
    "Vercel AI SDK, openai-compatible": Program(nothing, bearer(), (GENERATE, EDIT)),
    "Vercel AI SDK, openai": Program(bearer("x"), bearer(), (GENERATE,)),
    "SDAI": Program(nothing, basic(":{token}"), (OPTIONS, Call(f"{A1111}/loras"), TXT2IMG)),
    # These have no field for it; the address is http://me:TOKEN@SERVER:7860.
    "AIYA, oobabooga, AI-Render": Program(nothing, basic("me:{token}"), (OPTIONS, TXT2IMG)),
    "curl and scripts": Program(
        nothing, lambda token: {"x-api-key": token}, (Call("/models"), MODELS, OPTIONS)
    ),
}


def ask(server: RunningServer, call: Call, headers: Headers, photo: Path) -> httpx2.Response:
    files = None if call.form is None else {"image": photo.read_bytes()}
    method = "GET" if call.json is None and files is None else "POST"
    return server.http.request(
        method, call.path, headers=headers, json=call.json, data=call.form, files=files
    )


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    secret: str = issue(server, "somebody's program")["token"]
    return secret


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_the_servers_machine_it_works_as_it_comes(
    server: RunningServer, name: str, photo: Path
) -> None:
    program = PROGRAMS[name]
    for call in program.calls:
        answer = ask(server, call, program.as_it_comes(""), photo)
        assert answer.status_code == 200, (call.path, answer.text)


@pytest.mark.parametrize("name", sampled(PROGRAMS, one_in=4))
def test_from_the_network_it_works_with_a_token_alone(
    server: RunningServer, name: str, token: str, photo: Path
) -> None:
    program = PROGRAMS[name]
    refused = ask(server, program.calls[0], {**program.as_it_comes(""), **PASSED_ON}, photo)
    assert refused.status_code == 401
    for call in program.calls:
        answer = ask(server, call, {**program.with_token(token), **PASSED_ON}, photo)
        assert answer.status_code == 200, (call.path, answer.text)


# --- libraries that are installed here ------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a library asks from: headers that say so, and its key."""

    headers: Headers
    key: str


@pytest.fixture(params=["this machine", "network"])
def place(request: pytest.FixtureRequest, token: str) -> Place:
    here = request.param == "this machine"
    return Place({}, "sk-no-key-required") if here else Place(PASSED_ON, token)


def sdk(server: RunningServer, place: Place) -> dict[str, Any]:
    return {
        "base_url": f"{server.url}/v1",
        "api_key": place.key,
        "default_headers": place.headers,
        "max_retries": 0,
    }


def test_openai_sdk_for_python(server: RunningServer, place: Place) -> None:
    with openai.OpenAI(**sdk(server, place)) as ai:
        assert ai.models.list().data
        made = ai.images.generate(
            prompt="a red fox", size="64x64", extra_body={"num_inference_steps": 1}
        )
    assert made.data


def test_litellm(server: RunningServer, place: Place) -> None:
    """`image_generation` of `openai/MODEL` asks for the SDK's raw response."""

    async def generate() -> openai.types.ImagesResponse:
        async with openai.AsyncOpenAI(**sdk(server, place)) as ai:
            raw = await ai.images.with_raw_response.generate(
                model="tintype",
                prompt="a red fox",
                n=1,
                size="64x64",
                extra_body={"num_inference_steps": 1},
            )
            return raw.parse()

    assert asyncio.run(generate()).data


def test_langchain(server: RunningServer, place: Place) -> None:
    """`DallEAPIWrapper` shows the picture's address to the model."""
    with openai.OpenAI(**sdk(server, place)) as ai:
        made = ai.images.generate(
            model="dall-e-3",
            prompt="a red fox",
            n=1,
            size="1024x1024",
            quality="standard",
            extra_body={"num_inference_steps": 1},
        )
    assert made.data
    address = made.data[0].url
    assert address is not None
    assert httpx2.get(address, headers=PASSED_ON).status_code == 200


def test_webuiapi(server: RunningServer, place: Place) -> None:
    """It sends no credential until it is given one."""
    given = {"username": "me", "password": place.key} if place.headers else {}
    api = webuiapi.WebUIApi(baseurl=f"{server.url}{A1111}", **given)
    api.session.headers.update(place.headers)

    assert api.get_options()
    assert api.txt2img(prompt="a red fox", steps=1, width=64, height=64).image.size == (64, 64)


LIBRARIES = ("OpenAI SDK for Python", "litellm", "LangChain", "webuiapi")
PAGES = "KoboldAI Lite and other pages"  # tests/browser/test_other_origins.py


# --- what is the same for all ---------------------------------------------------------------


def test_a_revoked_token_is_noticed_on_the_servers_machine_too(server: RunningServer) -> None:
    issued = issue(server, "a program that is sent away")
    server.http.delete(f"/tokens/{issued['id']}")
    for headers in (bearer(), basic("me:{token}"), azure()):
        answer = server.http.get("/models", headers=headers(issued["token"]))
        assert_refused(answer, 401, "token")


def test_each_row_of_the_page_is_tested_here() -> None:
    rows = TABLE.search(PAGE.read_text())
    assert rows is not None
    named = {row.split("|")[1].strip() for row in rows[1].splitlines()}

    assert named == {*PROGRAMS, *LIBRARIES, PAGES}
