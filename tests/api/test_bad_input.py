"""Every input is hostile. Each bad one is a 4xx problem that names the field; nothing is queued."""

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.serving import RunningServer

Post = Callable[..., httpx2.Response]


@pytest.fixture
def post(idle_server: RunningServer) -> Iterator[Post]:
    """POSTs what must be refused, and sees afterwards that nothing came of it."""

    def jobs() -> int:
        text = idle_server.http.get("/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("darkroom_jobs{")]
        assert lines
        return sum(int(float(line.split()[-1])) for line in lines)

    def pictures() -> int:
        folder = idle_server.data_dir / "images"
        return sum(1 for path in folder.rglob("*") if path.is_file())

    before = jobs(), pictures()
    yield idle_server.http.post
    assert (jobs(), pictures()) == before
    assert idle_server.http.get("/healthz").status_code == 200


def assert_problem(answer: httpx2.Response, pointer: str, *, status: int = 422) -> str:
    """The one error shape; returns what it says of the field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    found = {error["pointer"]: error["detail"] for error in problem["errors"]}
    assert pointer in found, problem
    detail: str = found[pointer]
    return detail


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims a size; `data` is what stands for its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def saved(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


# --- fields --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 7),
        ("prompt", None),
        ("prompt", "x" * 8001),
        ("prompt", "a\x00fox"),
        ("negative_prompt", ["blur"]),
        ("width", 127),
        ("width", "128"),
        ("width", 0),
        ("width", -128),
        ("width", 10**9),
        ("height", 128.5),
        ("height", True),
        ("num_inference_steps", 0),
        ("num_inference_steps", 151),
        ("guidance_scale", -1),
        ("guidance_scale", 31),
        ("guidance_scale", "high"),
        ("num_images", 0),
        ("num_images", 9),
        ("seed", -1),
        ("seed", 2**32),
        ("scheduler", "magic"),
        ("scheduler", "ddim_karras"),
        ("model", "../../etc"),
        ("clip_skip", 12),
        ("clip_skip", 7),
        ("output_format", "gif"),
        ("exact", "maybe"),
    ],
)
def test_a_wrong_value_names_its_field(post: Post, field: str, value: Any) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", field: value})

    assert_problem(answer, f"#/{field}")


def test_a_wrong_value_deep_inside_is_pointed_at(post: Post) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", "loras": [{"name": "x", "scale": 99}]})

    assert_problem(answer, "#/loras/0/scale")


def test_an_unknown_lora_is_named(post: Post) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", "loras": [{"name": "ink"}]})

    assert "ink" in assert_problem(answer, "#/loras/0/name")


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("steps", "num_inference_steps"),
        ("cfg_scale", "guidance_scale"),
        ("guidence_scale", "guidance_scale"),
        ("sampler_name", "scheduler"),
        ("n", "num_images"),
    ],
)
def test_an_unknown_field_is_met_with_a_hint(post: Post, field: str, meant: str) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", field: 4})

    assert f"did you mean {meant}?" in assert_problem(answer, f"#/{field}")


def test_an_answer_tells_a_bounded_number_of_errors(post: Post) -> None:
    unknown = {f"a{number}": 0 for number in range(1000)}

    answer = post("/txt2img", json={"prompt": "a fox", **unknown})

    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 64


@pytest.mark.parametrize("field", ["model", "scheduler"])
def test_a_name_has_a_length(post: Post, field: str) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", field: "x" * 10_000})

    assert "at most 255 characters" in assert_problem(answer, f"#/{field}")


def test_an_unknown_scheduler_is_met_with_a_hint(post: Post) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", "scheduler": "dpmpp_2m_karas"})

    assert "dpmpp_2m_karras" in assert_problem(answer, "#/scheduler")


def test_more_pixels_than_the_model_makes_are_refused(post: Post) -> None:
    answer = post("/txt2img", json={"prompt": "a fox", "width": 256, "height": 256})

    assert "tintype makes" in assert_problem(answer, "#/width")


@pytest.mark.parametrize("strength", [0, -0.5, 1.5])
def test_strength_has_a_range(post: Post, photo: Path, strength: float) -> None:
    answer = post(
        "/img2img",
        data={"prompt": "a fox", "strength": strength},
        files={"image": photo.read_bytes()},
    )

    assert_problem(answer, "#/strength")


def test_a_photograph_is_too_large_to_resize_its_latents(post: Post) -> None:
    photograph = io.BytesIO()
    Image.new("RGB", (2000, 500)).save(photograph, "PNG")
    answer = post(
        "/img2img",
        data={"prompt": "a fox", "latent_resize": "nearest"},
        files={"image": photograph.getvalue()},
    )

    assert "the picture is 2000×500; tintype encodes" in assert_problem(answer, "#/latent_resize")


def test_strength_that_leaves_no_step_is_refused(post: Post, photo: Path) -> None:
    answer = post(
        "/img2img",
        data={"prompt": "a fox", "strength": "0.01", "num_inference_steps": "20"},
        files={"image": photo.read_bytes()},
    )

    assert "at least 0.05" in assert_problem(answer, "#/strength")


# --- bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
def test_an_empty_body_lacks_its_prompt(post: Post, headers: dict[str, str]) -> None:
    answer = post("/txt2img", content=b"", headers=headers)

    assert assert_problem(answer, "#/prompt") == "is required"


def test_an_empty_form_lacks_its_picture(post: Post) -> None:
    answer = post("/inpaint", data={"prompt": "a fox"}, files={"nothing": b""})

    assert_problem(answer, "#/nothing")


@pytest.mark.parametrize("body", [b"{", b"fox", b'{"prompt": "\xff"}', b"[]", b"null", b'"x"'])
def test_what_is_not_a_json_object_is_refused(post: Post, body: bytes) -> None:
    answer = post("/txt2img", content=body, headers={"content-type": "application/json"})

    assert answer.status_code in (400, 422), answer.text
    assert_problem(answer, "#", status=answer.status_code)


def test_deeply_nested_json_is_refused(post: Post) -> None:
    body = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = post("/txt2img", content=body, headers={"content-type": "application/json"})

    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "image/png"])
def test_a_wrong_content_type_is_refused(post: Post, kind: str) -> None:
    answer = post("/txt2img", content=b"a fox", headers={"content-type": kind})

    assert answer.status_code == 415
    assert kind in answer.json()["detail"]


def test_curl_without_a_content_type_is_told_what_to_add(post: Post) -> None:
    answer = post("/txt2img", data={"prompt": "a fox"})

    assert answer.status_code == 415
    assert "content-type: application/json" in answer.json()["detail"]


def test_a_field_given_twice_is_refused(post: Post, photo: Path) -> None:
    files = [("image", photo.read_bytes()), ("image", photo.read_bytes())]

    assert_problem(post("/img2img", data={"prompt": "a fox"}, files=files), "#/image")


def test_a_body_over_the_limit_is_refused(post: Post) -> None:
    answer = post("/txt2img", content=b"x" * (97 * 2**20), headers={"content-type": "text/plain"})

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


# --- pictures ------------------------------------------------------------------------------


def bad_pictures() -> dict[str, bytes]:
    photo = (Path(__file__).parent.parent / "data" / "photo.jpg").read_bytes()
    whole = saved(Image.effect_noise((64, 64), 50))
    return {
        "empty": b"",
        "text": b"this is not a picture",
        "html": b"<html><script>alert(1)</script></html>",
        "truncated JPEG": photo[: len(photo) // 2],
        "truncated PNG": whole[: len(whole) // 2],
        "header only": photo[:20],
        "50,000 pixels wide": png(50_000, 8, zlib.compress(b"\0" * 150_001 * 8)),
        "PNG bomb": png(16_000, 16_000, zlib.compress(b"\0" * (48_001 * 16_000 // 50))),
        "PNG bomb beyond all sense": png(2**31 - 1, 2**31 - 1, b""),
        "one pixel": saved(Image.new("RGB", (1, 1))),
        "no pixels": png(0, 0),
        "a script in SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit",
        "PDF": b"%PDF-1.7\n",
    }


@pytest.mark.parametrize("name", bad_pictures())
def test_a_bad_picture_is_refused_by_name(post: Post, name: str) -> None:
    answer = post(
        "/img2img", data={"prompt": "a fox"}, files={"image": ("photo.jpg", bad_pictures()[name])}
    )

    assert_problem(answer, "#/image")


@pytest.mark.parametrize("name", bad_pictures())
def test_a_bad_mask_is_refused_by_name(post: Post, photo: Path, name: str) -> None:
    answer = post(
        "/inpaint",
        data={"prompt": "a fox"},
        files={"image": photo.read_bytes(), "mask_image": bad_pictures()[name]},
    )

    assert_problem(answer, "#/mask_image")


@pytest.mark.parametrize(
    "value",
    [
        "not base64!",
        "data:image/png,plain",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "image:nothing-of-yours",
        "image:../../etc/passwd",
        base64.b64encode(b"not a picture").decode(),
    ],
)
def test_a_bad_picture_in_json_is_refused(post: Post, value: str) -> None:
    assert_problem(post("/img2img", json={"prompt": "a fox", "image": value}), "#/image")


def test_a_mask_of_another_size_is_refused(post: Post, photo: Path) -> None:
    answer = post(
        "/inpaint",
        data={"prompt": "a fox"},
        files={"image": photo.read_bytes(), "mask_image": saved(Image.new("L", (64, 64), 255))},
    )

    assert "64×64" in assert_problem(answer, "#/mask_image")


def test_a_mask_that_marks_nothing_is_refused(post: Post, photo: Path) -> None:
    answer = post(
        "/inpaint",
        data={"prompt": "a fox"},
        files={"image": photo.read_bytes(), "mask_image": saved(Image.new("L", (451, 300), 0))},
    )

    assert_problem(answer, "#/mask_image")


def test_a_file_where_none_belongs_is_refused(post: Post, photo: Path) -> None:
    answer = post("/txt2img", data={"prompt": "a fox"}, files={"image": photo.read_bytes()})

    assert_problem(answer, "#/image")


# --- routes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/txt2img", 405),
        ("GET", "/jobs/unknown", 404),
        ("DELETE", "/jobs/unknown", 404),
        ("GET", "/jobs/unknown/events", 404),
        ("GET", "/images/unknown", 404),
        ("GET", "/images/..%2f..%2fdarkroom.db", 404),
        ("DELETE", "/images/unknown", 404),
        ("GET", "/jobs?limit=0", 422),
        ("GET", "/jobs?limit=ten", 422),
        ("GET", "/jobs?status=lost", 422),
        ("GET", "/jobs?colour=red", 422),
        ("GET", "/jobs?cursor=-1", 422),
        ("GET", "/static/../app.py", 404),
    ],
)
def test_every_failure_has_the_one_error_shape(
    idle_server: RunningServer, method: str, path: str, status: int
) -> None:
    answer = idle_server.http.request(method, path)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "request_id"}
    assert problem["status"] == status


def test_a_bad_last_event_id_is_refused(idle_server: RunningServer) -> None:
    job = idle_server.submit()
    answer = idle_server.http.get(
        f"/jobs/{job['id']}/events", headers={"last-event-id": "yesterday"}
    )

    assert answer.status_code == 400
