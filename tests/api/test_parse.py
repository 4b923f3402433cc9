"""The reader of request bodies, in an application of its own: parsed once, checked as JSON is."""

import functools
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, jsonify
from flask.testing import FlaskClient
from pydantic import ValidationError
from werkzeug.test import TestResponse

from darkroom.api import errors
from darkroom.api.parse import JSON_BYTES, Body, BodyReader
from darkroom.requests import REQUESTS, PairRequest, TokenRequest

MAX_BODY_BYTES = 200_000
MAX_FILE_BYTES = 50_000
MODELS = (*REQUESTS.values(), TokenRequest, PairRequest)
JSON = {"content-type": "application/json"}
GZIP = {"content-encoding": "gzip"}


@pytest.fixture
def http(tmp_path: Path) -> FlaskClient:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
    errors.install(app)
    bodies = BodyReader(MAX_FILE_BYTES, tmp_path)

    def shown(read: Callable[[], Body]) -> Callable[[], Response]:
        def view() -> Response:
            body = read()
            sizes = {name: len(data) for name, data in body.files.items()}
            return jsonify(fields=body.fields, files=sizes, spare=body.spare)

        return view

    for path, tolerant in (("strict", False), ("tolerant", True)):
        read = functools.partial(bodies.read, ["image"], tolerant=tolerant)
        app.add_url_rule(f"/{path}", path, shown(read), methods=["POST"])
    app.add_url_rule("/any", "any", shown(bodies.read_any_json), methods=["POST"])
    pair: Callable[[], Response] = lambda: jsonify(bodies.read_json(PairRequest).model_dump())  # noqa: E731
    app.add_url_rule("/pair", "pair", pair, methods=["POST"])
    return app.test_client()


def problem(answer: TestResponse, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    found: dict[str, Any] = answer.get_json()
    return found


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 7, 8, 7.0, 7.5, -1, 2**32, 2**70, 1e308, float("nan"), "", "x", "7"),
    *("png", "gif", "own", "noise", "true", [], ["x"], {}, {"name": "x"}, [[]], [None]),
    *([{"name": "x"}], [{"name": "x", "scale": "1"}], [{"name": 7}], [{"name": "x", "y": 1}]),
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_parsed_fields_are_checked_as_pydantic_checks_json(model: Any) -> None:
    whole = {"prompt": "a fox", "image": "image:x", "mask_image": "image:y", "upscaler": "u"}
    whole |= {"name": "phone", "code": "7QX4"}
    known = {name: value for name, value in whole.items() if name in model.model_fields}
    bodies = [
        known,
        {},
        *({**known, name: value} for name in model.model_fields for value in VALUES),
    ]
    for fields in (*bodies, {**known, "fox": 1}):
        expected: Any
        try:
            expected = model.model_validate_json(json.dumps(fields), strict=True)
        except ValidationError as error:
            expected = errors.field_errors(error, model.model_fields)
        with Flask(__name__).app_context():
            try:
                found = Body(fields).validate(model)
            except errors.ProblemError as refusal:
                found = list(refusal.problem.errors)
        assert str(found) == str(expected), fields  # NaN is not itself


def test_a_repeated_name_is_refused_where_it_stands(http: FlaskClient) -> None:
    answer = http.post("/strict", data=b'{"a": [{"b": 1, "b": 2}]}', headers=JSON)

    assert problem(answer, 422)["errors"] == [{"pointer": "#", "detail": "holds b more than once"}]


def test_a_repeated_name_among_many_takes_no_time(http: FlaskClient) -> None:
    """Each name used to be counted among all."""
    body = json.dumps({f"k{number}": 0 for number in range(10_000)})

    answer = http.post("/strict", data=body[:-1] + ', "k0": 0}', headers=JSON)

    assert problem(answer, 422)["errors"] == [{"pointer": "#", "detail": "holds k0 more than once"}]


def test_what_is_not_json_is_said_where(http: FlaskClient) -> None:
    answer = http.post("/strict", data=b'{\n"a": fox}', headers=JSON)

    assert problem(answer, 400)["errors"] == [
        {"pointer": "#", "detail": "Invalid JSON: expecting value at line 2 column 6"}
    ]


@pytest.mark.parametrize("path", ["/strict", "/tolerant", "/any"])
def test_nothing_is_an_object_without_fields(http: FlaskClient, path: str) -> None:
    assert http.post(path).get_json()["fields"] == {}


def test_other_apis_take_the_last_of_a_name_and_no_infinity(http: FlaskClient) -> None:
    text = b'{"a": 1, "a": 2, "b": Infinity, "c": 1e400, "d": NaN, "e": [-1e999]}'
    answer = http.post("/any", data=text, headers={"content-type": "text/plain"})

    assert answer.get_json()["fields"] == {"a": 2, "b": None, "c": None, "d": None, "e": [None]}


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b'"x"', b'{"a": "\\ud800"}', b"[" * 100_000, b"\xff"]
)
def test_other_apis_call_what_is_no_object_not_valid(http: FlaskClient, text: bytes) -> None:
    assert problem(http.post("/any", data=text), 422)["errors"][0]["pointer"] == "#"


def part(name: bytes, data: bytes, *, file: bool = False) -> bytes:
    head = b'--B\r\nContent-Disposition: form-data; name="%s"' % name
    return head + b'; filename="photo.png"' * file + b"\r\n\r\n" + data + b"\r\n"


END = b"--B--\r\n"
FORM = {"content-type": "multipart/form-data; boundary=B"}
LISTS = (
    part(b"prompt", b"a fox")
    + part(b"loras", b'[{"name": "ink"}]')
    + b"".join(part(b"image[%d]" % number, b"x" * number, file=True) for number in (1, 2))
    + END
)


def test_a_form_holds_text_json_and_files(http: FlaskClient) -> None:
    data = part(b"prompt", b"a fox") + part(b"loras", b"[]") + part(b"image", b"x", file=True) + END
    answer = http.post("/strict", data=data, headers=FORM)

    expected = {"fields": {"prompt": "a fox", "loras": []}, "files": {"image": 1}, "spare": []}
    assert answer.get_json() == expected


def test_other_apis_list_files_and_send_more_of_them(http: FlaskClient) -> None:
    answer = http.post("/tolerant", data=LISTS, headers=FORM).get_json()
    refused = problem(http.post("/strict", data=LISTS, headers=FORM), 422)

    assert answer["files"] == {"image": 1}
    assert answer["spare"] == ["image[2]"]
    assert [error["pointer"] for error in refused["errors"]] == ["#/image[1]", "#/image[2]"]


@pytest.mark.parametrize("path", ["/strict", "/tolerant"])
def test_a_text_part_given_twice_is_refused(http: FlaskClient, path: str) -> None:
    data = part(b"prompt", b"a") + part(b"prompt", b"b") + END

    errors_ = problem(http.post(path, data=data, headers=FORM), 422)["errors"]
    assert errors_ == [{"pointer": "#/prompt", "detail": "is given more than once"}]


# --- Content-Encoding ----------------------------------------------------------------------

FOX = b'{"prompt": "a fox"}'


@pytest.mark.parametrize("path", ["/strict", "/tolerant", "/any"])
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
def test_a_body_is_unpacked(http: FlaskClient, path: str, coding: str) -> None:
    packed = gzip.compress(FOX[:7]) + gzip.compress(FOX[7:])  # members follow each other
    answer = http.post(path, data=packed, headers={**JSON, "content-encoding": coding})

    assert answer.get_json()["fields"] == {"prompt": "a fox"}


def test_a_form_is_unpacked(http: FlaskClient) -> None:
    answer = http.post("/tolerant", data=gzip.compress(LISTS), headers={**FORM, **GZIP})

    assert answer.get_json()["files"] == {"image": 1}


def test_a_small_body_is_unpacked(http: FlaskClient) -> None:
    packed = gzip.compress(b'{"code": "7QX4", "name": "phone"}')

    assert http.post("/pair", data=packed, headers={**JSON, **GZIP}).get_json()["code"] == "7QX4"


@pytest.mark.parametrize(
    ("path", "headers", "size"),
    [
        ("/strict", JSON, MAX_BODY_BYTES),
        ("/strict", FORM, MAX_BODY_BYTES),
        ("/any", JSON, MAX_BODY_BYTES),
        ("/pair", JSON, JSON_BYTES),
    ],
)
def test_a_body_is_measured_unpacked(
    http: FlaskClient, path: str, headers: dict[str, str], size: int
) -> None:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()

    for data in (gzip.compress(b" " * (size + 1)), bomb):
        assert len(data) < MAX_BODY_BYTES
        problem(http.post(path, data=data, headers={**headers, **GZIP}), 413)


def test_a_file_is_measured_unpacked(http: FlaskClient) -> None:
    for size, status in ((MAX_FILE_BYTES, 200), (MAX_FILE_BYTES + 1, 413)):
        data = gzip.compress(part(b"image", bytes(size), file=True) + END)
        assert len(data) < 1000
        answer = http.post("/strict", data=data, headers={**FORM, **GZIP})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "data",
    [FOX, b"\x1f\x8b\x08\x00", gzip.compress(FOX)[:-1], gzip.compress(FOX)[:20], b"\x1f\x8b" + FOX],
    ids=["plain", "head", "without its end", "cut short", "no gzip behind the mark"],
)
@pytest.mark.parametrize("path", ["/strict", "/tolerant", "/any", "/pair"])
def test_what_is_not_gzip_is_malformed(http: FlaskClient, path: str, data: bytes) -> None:
    answer = http.post(path, data=data, headers={**JSON, **GZIP})

    assert problem(answer, 400)["type"] == "urn:darkroom:problem:content-encoding"


@pytest.mark.parametrize("path", ["/strict", "/tolerant", "/any", "/pair"])
@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_another_coding_is_refused_with_the_one_that_is_read(
    http: FlaskClient, path: str, coding: str
) -> None:
    answer = http.post(path, data=FOX, headers={**JSON, "content-encoding": coding})

    problem(answer, 415)
    assert answer.headers["accept-encoding"] == "gzip"
