"""Request bodies that no client of ours sends: each is refused as a problem, or means one thing."""

import gzip
import random
from pathlib import Path

import httpx2
import pytest

from tests.security.mutations import MUTATIONS
from tests.serving import RunningServer

FOX = b'"prompt": "a fox"'
END = b"--B--\r\n"


def part(disposition: bytes, body: bytes = b"a fox", extra: bytes = b"") -> bytes:
    head = b"--B\r\nContent-Disposition: form-data; " + disposition
    return head + b"\r\n" + extra + b"\r\n" + body + b"\r\n"


PROMPT = part(b'name="prompt"')

JSON = {
    "a field twice": (b'{"prompt": "a", "prompt": "b"}', 422, "#"),
    "a field twice, deep inside": (
        b'{%s, "loras": [{"name": "a", "name": "b"}]}' % FOX,
        422,
        "#",
    ),
    "not a number": (b'{%s, "guidance_scale": NaN}' % FOX, 422, "#/guidance_scale"),
    "infinity": (b'{%s, "guidance_scale": Infinity}' % FOX, 422, "#/guidance_scale"),
    "beyond floats": (b'{%s, "guidance_scale": 1e400}' % FOX, 422, "#/guidance_scale"),
    "beyond integers": (b'{%s, "seed": %s}' % (FOX, b"9" * 4000), 422, "#/seed"),
    "beyond all integers": (b'{%s, "seed": %s}' % (FOX, b"9" * 100_000), 400, "#"),
    "half a character": (b'{"prompt": "\\ud800"}', 400, "#"),
    "half a character, encoded": (b'{"prompt": "\xed\xa0\x80"}', 400, "#"),
    "a bottomless list": (b"[" * 100_000, 400, "#"),
    "bottomless objects": (b'{"a":' * 100_000, 400, "#"),
    "a NUL character": (b'{"prompt": "a\\u0000fox"}', 422, "#/prompt"),
    "a NUL byte": (b'{"prompt": "a\x00fox"}', 400, "#"),
    "a byte order mark": (b"\xef\xbb\xbf{%s}" % FOX, 400, "#"),
    "UTF-16": ('{"prompt": "a fox"}'.encode("utf-16"), 400, "#"),
    "Latin-1": ('{"prompt": "ein Bär"}'.encode("latin-1"), 400, "#"),
    "compressed": (b"\x1f\x8b\x08\x00", 400, "#"),
    "a comment": (b"{%s /* red */}" % FOX, 400, "#"),
    "something after the end": (b"{%s} x" % FOX, 400, "#"),
    "nothing": (b"", 422, "#/prompt"),
    "null": (b"null", 422, "#"),
    "a list": (b"[]", 422, "#"),
    "a number for true": (b'{%s, "exact": 1}' % FOX, 422, "#/exact"),
    "a name with slashes": (b'{%s, "a/b~c": 1}' % FOX, 422, "#/a~1b~0c"),
}

FORMS = {
    "bytes that are not UTF-8": (part(b'name="prompt"', b"\xff\xfe"), 422, "#/prompt"),
    "half a character": (part(b'name="prompt"', b"\xed\xa0\x80"), 422, "#/prompt"),
    "a NUL byte in a name": (PROMPT + part(b'name="a\x00"'), 422, "#/a\x00"),
    "a part without a name": (
        PROMPT + b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n",
        422,
        "#",
    ),
    "bottomless LoRAs": (PROMPT + part(b'name="loras"', b"[" * 100_000), 422, "#/loras"),
    "half a character in a LoRA": (
        PROMPT + part(b'name="loras"', b'[{"name": "\\ud800"}]'),
        422,
        "#/loras/0/name",
    ),
    "not a number": (PROMPT + part(b'name="guidance_scale"', b"nan"), 422, "#/guidance_scale"),
    "another alphabet's digits": (PROMPT + part(b'name="seed"', "٣".encode()), 422, "#/seed"),
    "beyond all integers": (PROMPT + part(b'name="seed"', b"9" * 100_000), 422, "#/seed"),
    "text for a picture": (PROMPT + part(b'name="image"', b"hello"), 422, "#/image"),
}


def refused(answer: httpx2.Response, status: int, pointer: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]], answer.text


@pytest.mark.parametrize("name", JSON)
def test_odd_json_is_refused(idle_server: RunningServer, name: str) -> None:
    body, status, pointer = JSON[name]
    headers = {"content-type": "application/json", "prefer": "respond-async"}

    refused(idle_server.http.post("/txt2img", content=body, headers=headers), status, pointer)


@pytest.mark.parametrize("name", FORMS)
def test_an_odd_form_is_refused(idle_server: RunningServer, name: str) -> None:
    body, status, pointer = FORMS[name]
    headers = {"content-type": "multipart/form-data; boundary=B", "prefer": "respond-async"}

    refused(idle_server.http.post("/img2img", content=body + END, headers=headers), status, pointer)


def test_a_form_of_countless_parts_is_refused(idle_server: RunningServer) -> None:
    body = b"".join(part(b'name="field%d"' % number) for number in range(1100)) + END
    headers = {"content-type": "multipart/form-data; boundary=B", "prefer": "respond-async"}
    answer = idle_server.http.post("/txt2img", content=body, headers=headers)

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/jobs?cursor=9223372036854775808",
        "/jobs?cursor=" + "9" * 2000,
        "/jobs?limit=1&limit=2",
        "/jobs?limit=%ff",
        "/jobs?status=%ed%a0%80",
        "/images/unknown?w=" + "9" * 2000,
        "/events?last_event_id=99999999999999999999",
        "/images/%00",
        "/jobs/%ff",
        "/jobs/%F0%9F%A6%8A/events",
    ],
)
def test_an_odd_address_is_refused(idle_server: RunningServer, path: str) -> None:
    answer = idle_server.http.get(path)

    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/txt2img", b'{"fox": 1}', "fox"),
        ("/pair/codes", b'{"scope": "fox"}', "scope"),
        ("/tokens", b'{"scope": "fox"}', "scope"),
        ("/pair", b'{"fox": 1}', "fox"),
        ("/sdapi/v1/txt2img", b'{"script_name": "fox"}', "fox"),
        ("/sdapi/v1/png-info", b'{"image": "fox!"}', "base64"),
        ("/sdapi/v1/options", b'{"sd_model_checkpoint": "fox"}', "fox"),
        ("/v1/images/generations", b'{"prompt": "a", "n": "fox"}', "n"),
    ],
)
def test_gzip_is_read_on_every_route(
    idle_server: RunningServer, path: str, body: bytes, said: str
) -> None:
    """The answers are about what the body says, so it was read."""
    kind = {"content-type": "application/json"}
    plain = idle_server.http.post(path, content=body, headers=kind)
    packed = idle_server.http.post(
        path, content=gzip.compress(body), headers={**kind, "content-encoding": "gzip"}
    )
    other = idle_server.http.post(path, content=body, headers={**kind, "content-encoding": "br"})

    assert 400 <= plain.status_code < 500
    assert said in plain.text

    def without_id(answer: httpx2.Response) -> str:
        return answer.text.replace(answer.headers["x-request-id"], "")

    assert (packed.status_code, without_id(packed)) == (plain.status_code, without_id(plain))
    assert (other.status_code, other.headers["accept-encoding"]) == (415, "gzip")


def test_a_bomb_is_refused_at_the_limit(idle_server: RunningServer) -> None:
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = idle_server.http.post("/txt2img", content=bomb, headers=headers)

    assert len(bomb) < 2**20
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=B"])
def test_a_damaged_body_is_accepted_or_refused(
    idle_server: RunningServer, photo: Path, kind: str
) -> None:
    """What was damaged may be the picture, the fields, or what holds them together."""
    if kind == "application/json":
        whole = b'{"prompt": "a fox", "loras": [], "seed": 7, "output_format": "webp"}'
    else:
        file = part(b'name="image"; filename="photo.jpg"', photo.read_bytes()[:2000])
        whole = PROMPT + part(b'name="seed"', b"7") + part(b'name="loras"', b"[]") + file + END
    path = "/txt2img" if kind == "application/json" else "/img2img"
    chance = random.Random(7)
    for number in range(100):
        body = bytearray(whole)
        for mutation in chance.choices(MUTATIONS, k=chance.choice((1, 2))):
            if body:
                mutation(chance, body)
        headers = {"content-type": kind, "prefer": "respond-async"}
        answer = idle_server.http.post(path, content=bytes(body), headers=headers)
        assert answer.status_code in (202, 400, 413, 422), (number, bytes(body), answer.text)
