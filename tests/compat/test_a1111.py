"""/sdapi/v1: what A1111's clients may say, and what becomes of it."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageChops, ImageDraw

from darkroom.images import metadata
from darkroom.requests import RESOLVED, WHITE_PICTURE, Lora, Task
from tests.api.test_loras import TO_K, lora, save
from tests.effort import sampled
from tests.engine import tiny, tiny_families
from tests.engine.stock import assert_equal
from tests.security.doors import client, issue, jobs_in
from tests.serving import RunningServer, running
from tests.waiting import eventually

API = "/sdapi/v1"

UPSCALE = {"script_name": "sd upscale", "width": 64, "height": 64}
SMALL = {"prompt": "a red fox", "steps": 2, "seed": 7, "width": 128, "height": 128}


def ask(server: RunningServer, route: str, **fields: Any) -> dict[str, Any]:
    """A request that is answered: the answer, with `info` read and `pictures` decoded."""
    answer = server.http.post(f"{API}/{route}", json=SMALL | fields)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    told["info"] = json.loads(told["info"])
    told["files"] = [base64.b64decode(text) for text in told["images"]]
    told["pictures"] = [opened(data) for data in told["files"]]
    header = answer.headers.get("x-ignored-fields", "")
    assert header == ", ".join(told["info"]["ignored"])
    return told


def ignored(server: RunningServer, route: str = "txt2img", **fields: Any) -> list[str]:
    names: list[str] = ask(server, route, **{"steps": 1, "width": 64, "height": 64} | fields)[
        "info"
    ]["ignored"]
    return names


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def encoded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def refused(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """A1111's error shape."""
    assert answer.status_code == status, answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["error"]
    assert problem["detail"]
    assert problem.keys() >= {"body", "errors"}
    return problem


@pytest.fixture(scope="module")
def cat(photo: Path) -> Image.Image:
    with Image.open(photo) as opened:
        return opened.convert("RGB").resize((128, 128))


@pytest.fixture(scope="module")
def circle() -> Image.Image:
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).ellipse((40, 40, 88, 88), fill=255)
    return mask


# --- the same picture ----------------------------------------------------------------------


def test_the_picture_is_the_one_that_our_own_route_makes(server: RunningServer) -> None:
    theirs = ask(
        server,
        "txt2img",
        negative_prompt="a house",
        cfg_scale=5,
        sampler_name="DPM++ 2M",
        scheduler="Karras",
        batch_size=2,
    )
    ours = server.txt2img(
        negative_prompt="a house", guidance_scale=5, scheduler="dpmpp_2m_karras", num_images=2
    ).json()

    made = [server.http.get(image["url"]).content for image in ours["images"]]
    for theirs_file, ours_file in zip(theirs["files"], made, strict=True):
        theirs_picture, ours_picture = (opened(data) for data in (theirs_file, ours_file))
        assert theirs_picture.info == ours_picture.info
        # Which rows share a call depends on how fast they are, and rounding depends on it.
        assert_equal(theirs_picture, ours_picture)


@pytest.mark.slow
def test_so_it_is_from_a_picture_and_under_a_mask(
    server: RunningServer, cat: Image.Image, circle: Image.Image
) -> None:
    shared = {"prompt": "a fox", "seed": 7, "width": 128, "height": 128}
    native = {
        **shared,
        "num_inference_steps": 4,
        "guidance_scale": 7,
        "scheduler": "euler",
        "strength": 0.75,
        "image": encoded(cat),
    }
    theirs = {**shared, "steps": 4, "init_images": [encoded(cat)]}
    masked = {"mask": encoded(circle), "mask_blur": 2, "inpainting_fill": 1}

    for fields, route, extra in (
        (theirs, "/img2img", {}),
        (
            {**theirs, **masked, "inpaint_full_res": False, "inpainting_mask_invert": 1},
            "/inpaint",
            {"mask_image": encoded(circle), "mask_blur": 2, "invert_mask": True},
        ),
        (
            {**theirs, **masked, "inpaint_full_res": False, "inpainting_fill": 2},
            "/inpaint",
            {"mask_image": encoded(circle), "mask_blur": 2, "masked_content": "noise"},
        ),
        (
            {**theirs, **masked, "inpaint_full_res": False, "inpainting_fill": 3},
            "/inpaint",
            {"mask_image": encoded(circle), "mask_blur": 2, "masked_content": "nothing"},
        ),
        (
            {**theirs, "resize_mode": 3, "init_images": [encoded(cat.resize((64, 64)))]},
            "/img2img",
            {"image": encoded(cat.resize((64, 64))), "latent_resize": "bilinear"},
        ),
        (
            {**theirs, **masked, "inpaint_full_res": True, "inpaint_full_res_padding": 16},
            "/inpaint",
            {"mask_image": encoded(circle), "mask_blur": 2, "padding_mask_crop": 16},
        ),
    ):
        made = ask(server, "img2img", **fields)["files"][0]
        answer = server.http.post(route, json={**native, **extra}, headers={"accept": "image/png"})
        assert answer.content == made, route


# --- what is left out, and what is said differently ----------------------------------------


def test_what_is_left_out_has_the_defaults_that_clients_know(server: RunningServer) -> None:
    answer = server.http.post(f"{API}/txt2img", json={"width": 64, "height": 64})
    info = json.loads(answer.json()["info"])

    assert (info["steps"], info["cfg_scale"], info["sampler_name"]) == (50, 7, "Euler")
    assert 0 <= info["seed"] < 2**32
    assert answer.json()["parameters"]["seed"] == -1


@pytest.mark.parametrize("seed", sampled(["7", 7, " 7 ", 7.0, 2**32 + 7]))
def test_a_seed_may_come_as_text(server: RunningServer, seed: object) -> None:
    assert ask(server, "txt2img", seed=seed, steps=1)["info"]["seed"] == 7


@pytest.mark.parametrize("seed", sampled([-1, "-1", "", None, "a seed"]))
def test_no_seed_is_a_random_one(server: RunningServer, seed: object) -> None:
    first, second = (
        ask(server, "txt2img", seed=seed, steps=1, width=64, height=64)["info"]["seed"]
        for _ in range(2)
    )

    assert first != second


@pytest.mark.parametrize(
    "seed", [2**32, 2**53, 2**64 - 1, 1e20, "9007199254740993", 1.5, "0x10", "abc", [1], True]
)
def test_a_seed_that_is_used_as_another_is_named(server: RunningServer, seed: object) -> None:
    assert ignored(server, seed=seed) == ["seed"]


@pytest.mark.parametrize(
    "seed", [0, "12", " 12 ", "12.0", 7.0, 2**32 - 1, "", None, -1, "-1", -1.0]
)
def test_a_seed_that_is_used_as_it_is_or_asks_for_any_is_not_named(
    server: RunningServer, seed: object
) -> None:
    assert ignored(server, seed=seed) == []


@pytest.mark.parametrize("field", ["sampler_name", "scheduler"])
def test_a_name_that_is_no_text_is_named(server: RunningServer, field: str) -> None:
    assert ignored(server, **{field: 5}) == [field]


def test_what_a_request_leaves_out_is_filled_from_an_infotext(
    server: RunningServer, cat: Image.Image
) -> None:
    line = (
        "a blue owl\nNegative prompt: smudged\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 2, Seed: 5, Size: 64x64, Model: tintype, Version: v1.10.1"
    )
    wanted = {
        "prompt": "a blue owl",
        "negative_prompt": "smudged",
        "steps": 2,
        "cfg_scale": 2,
        "seed": 5,
        "sampler_name": "DPM++ 2M",
        "scheduler": "Karras",
        "width": 64,
        "height": 64,
    }

    for route, more in (("txt2img", {}), ("img2img", {"init_images": [encoded(cat)]})):
        body = {"infotext": line, "steps": 2, **more}
        answer = server.http.post(f"{API}/{route}", json=body).json()
        assert answer["images"] == ask(server, route, **wanted, **more)["images"]
        assert json.loads(answer["info"])["ignored"] == []


def test_what_an_infotext_asks_for_in_vain_is_named(server: RunningServer) -> None:
    line = "an owl\nSteps: 1, Sampler: Euler, Size: 64x64, Model: gone, Tiling: True, Version: v1"

    assert ignored(server, infotext=line) == ["infotext Tiling", "infotext Model"]


def test_an_infotext_may_ask_for_a_second_pass(server: RunningServer) -> None:
    line = "an owl\nSteps: 1, Seed: 1, Size: 64x64, Denoising strength: 0.7, Hires upscale: 1.5"
    answer = server.http.post(f"{API}/txt2img", json={"infotext": line}).json()

    (picture,) = (Image.open(io.BytesIO(base64.b64decode(text))) for text in answer["images"])
    assert picture.size == (96, 96)


def test_an_infotext_without_clip_skip_means_none(server: RunningServer) -> None:
    """Whatever the client has set: who writes such a line writes no 1."""
    line = "a red fox\nSteps: 1, Sampler: Euler, CFG scale: 1, Size: 64x64"
    with client(server, issue(server, "anime")["token"]) as http:
        http.post(f"{API}/options", json={"CLIP_stop_at_last_layers": 2})
        skipped, said = (
            json.loads(http.post(f"{API}/txt2img", json=fields).json()["info"])["clip_skip"]
            for fields in (SMALL | {"steps": 1}, {"infotext": line})
        )

    assert (skipped, said) == (2, 1)


def test_only_fields_of_theirs_are_repeated(server: RunningServer) -> None:
    """Some clients put a password into the body, which would lie in every saved answer."""
    answer = ask(server, "txt2img", auth="me:dk_secret", junk="x" * 1000, styles=[], tiling=False)

    assert answer["parameters"].keys() >= {"styles", "tiling", "steps"}
    assert not answer["parameters"].keys() & {"auth", "junk"}


def test_numbers_may_come_as_text_and_out_of_range(server: RunningServer) -> None:
    told = ask(server, "txt2img", steps="2", cfg_scale="3.5", width=100, height=72.0)

    assert told["info"]["steps"] == 2
    assert told["info"]["cfg_scale"] == 3.5
    assert told["pictures"][0].size == (96, 72)
    assert told["info"]["ignored"] == ["width"]
    assert ignored(server, cfg_scale=99, denoising_strength=0.4) == ["cfg_scale"]


@pytest.mark.parametrize(
    ("sent", "used", "names"),
    [("0.7", 0.7, []), (" 1 ", 1.0, []), ("1.5", 1.0, ["guidance_rescale"]), ("", None, [])],
)
def test_guidance_rescale_is_read_as_the_other_numbers_are(
    server: RunningServer, sent: str, used: float | None, names: list[str]
) -> None:
    assert ignored(server, guidance_rescale=sent) == names
    newest = server.http.get("/jobs?limit=1").json()["jobs"][0]["request"]
    assert newest.get("guidance_rescale") == used


def test_what_is_not_done_is_named(server: RunningServer) -> None:
    assert ignored(
        server,
        prompt="a [red:blue:0.5] fox|[cat|dog] AND <lora:none:0.5> <hypernet:x:1>",
        restore_faces=True,
        tiling=True,
        styles=["vivid"],
        subseed=3,
        subseed_strength=0.5,
        alwayson_scripts={"ADetailer": {"args": [True]}, "ControlNet": {"args": []}},
        override_settings={"sd_vae": "other.vae", "unknown": 1, "CLIP_stop_at_last_layers": 1},
        sampler_name="DPM adaptive",
        a_field_of_an_extension={"x": 1},
    ) == [
        *("override_settings.sd_vae", "override_settings.unknown"),
        *("restore_faces", "tiling", "styles", "a_field_of_an_extension"),
        *("alwayson_scripts.ADetailer", "subseed", "subseed_strength"),
        *("prompt <lora:none>", "prompt <hypernet:x:1>"),
        *("prompt [from:to:when]", "prompt [a|b]", "prompt AND", "sampler_name"),
    ]


def test_what_asks_for_nothing_is_not_named(server: RunningServer) -> None:
    assert (
        ignored(
            server,
            restore_faces=False,
            tiling=None,
            styles=[],
            eta=1.0,
            s_churn=0,
            s_noise=1,
            subseed=-1,
            firstphase_width=0,
            save_images=True,
            script_name=None,
            script_args=[],
            hr_scale=2,
            hr_upscaler="Latent",
            override_settings={"sd_vae": "Automatic", "sd_model_checkpoint": "tintype"},
            override_settings_restore_afterwards=True,
            force_task_id="x",
            prompt="a (red:1.2) [fox]",
        )
        == []
    )


def test_a_name_that_is_no_header_is_made_one(server: RunningServer) -> None:
    answer = server.http.post(
        f"{API}/txt2img",
        json=SMALL | {"steps": 1, "x\r\nSet-Cookie: y": 1, "ü" * 300: 1},
    )

    assert answer.headers["x-ignored-fields"] == "x??Set-Cookie: y, " + "?" * 100
    assert "set-cookie" not in answer.headers


def test_an_empty_prompt_is_a_prompt(server: RunningServer) -> None:
    assert ask(server, "txt2img", prompt=None, steps=1)["info"]["prompt"] == ""


# --- several pictures ----------------------------------------------------------------------


def test_more_pictures_than_a_job_has_are_several_jobs(server: RunningServer) -> None:
    told = ask(server, "txt2img", batch_size=5, n_iter=2, steps=1, width=64, height=64)
    ninth = ask(server, "txt2img", seed=15, steps=1, width=64, height=64)

    assert told["info"]["all_seeds"] == list(range(7, 17))
    assert told["pictures"][8].tobytes() == ninth["pictures"][0].tobytes()


def test_random_seeds_go_on_over_jobs(server: RunningServer) -> None:
    seeds = ask(server, "txt2img", seed=-1, batch_size=9, steps=1, width=64, height=64)["info"][
        "all_seeds"
    ]

    assert seeds == [(seeds[0] + index) % 2**32 for index in range(9)]


@pytest.mark.slow
def test_several_init_images_are_a_batch(server: RunningServer, cat: Image.Image) -> None:
    pictures = [encoded(cat), encoded(cat.rotate(180))]

    told = ask(server, "img2img", init_images=pictures, n_iter=2, denoising_strength=0.5)
    alone = ask(server, "img2img", init_images=pictures[1:], seed=10, denoising_strength=0.5)

    assert told["info"]["all_seeds"] == [7, 8, 9, 10]
    assert told["pictures"][3].tobytes() == alone["pictures"][0].tobytes()


def test_pictures_need_not_be_sent(server: RunningServer, cat: Image.Image) -> None:
    told = ask(server, "txt2img", send_images=False, steps=1)
    assert told["images"] == []
    assert told["info"]["all_seeds"] == [7]

    init = encoded(cat)
    told = ask(server, "img2img", init_images=[init], denoising_strength=1)
    assert told["parameters"]["init_images"] is None
    told = ask(
        server, "img2img", init_images=[init], denoising_strength=1, include_init_images=True
    )
    assert told["parameters"]["init_images"] == [init]


def test_a_format_may_be_chosen(server: RunningServer) -> None:
    told = ask(server, "txt2img", steps=1, override_settings={"samples_format": "webp"})

    assert told["pictures"][0].format == "WEBP"


# --- from pictures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"resize_mode": 0, "width": 128, "height": 64}, (128, 64)),
        ({"resize_mode": 1, "width": 128, "height": 64}, (128, 64)),
        ({"resize_mode": 2, "width": 64, "height": 128}, (64, 128)),
    ],
)
def test_resize_modes(
    server: RunningServer, cat: Image.Image, fields: dict[str, int], size: tuple[int, int]
) -> None:
    told = ask(server, "img2img", init_images=[encoded(cat)], **fields)

    assert told["pictures"][0].size == size
    assert told["info"]["ignored"] == []


@pytest.mark.slow
def test_fills_differ_and_keep_what_is_not_masked(
    server: RunningServer, cat: Image.Image, circle: Image.Image
) -> None:
    made = [
        ask(
            server,
            "img2img",
            init_images=["data:image/png;base64," + encoded(cat)],
            mask=encoded(circle),
            mask_blur=0,
            inpaint_full_res=False,
            inpainting_fill=fill,
            steps=4,
        )["pictures"][0].convert("RGB")
        for fill in range(4)
    ]

    assert len({picture.tobytes() for picture in made}) == 4
    for picture in made:
        box = ImageChops.difference(picture, cat).getbbox()
        assert box is not None
        assert min(box[:2]) >= 40
        assert max(box[2:]) <= 89


def test_only_masked_gives_a_picture_of_its_own_size(server: RunningServer, photo: Path) -> None:
    with Image.open(photo) as opened:
        size = opened.size
    mask = Image.new("L", (64, 64))  # of another size than the picture
    ImageDraw.Draw(mask).rectangle((20, 20, 40, 40), fill=255)

    told = ask(
        server,
        "img2img",
        init_images=[base64.b64encode(photo.read_bytes()).decode()],
        mask=encoded(mask),
        inpaint_full_res=True,
        inpaint_full_res_padding=32,
    )

    assert told["pictures"][0].size == size


def test_a_mask_that_marks_nothing_is_left_out(server: RunningServer, cat: Image.Image) -> None:
    init = [encoded(cat)]
    black, white = (encoded(Image.new("L", (128, 128), tone)) for tone in (0, 255))

    whole = ask(server, "img2img", init_images=init)
    nothing = ask(server, "img2img", init_images=init, mask=black)
    inverted = ask(server, "img2img", init_images=init, mask=white, inpainting_mask_invert=1)

    assert nothing["files"] == inverted["files"] == whole["files"]
    assert nothing["info"]["ignored"] == ["mask"]


STROKES = {
    "red": ((255, 0, 0, 255), (0, 0, 0, 0)),
    "violet, half clear": ((160, 0, 255, 128), (0, 0, 0, 0)),
    "white, mostly clear": ((255, 255, 255, 60), (0, 0, 0, 0)),
    "black": ((0, 0, 0, 255), (255, 255, 255, 0)),
    "blue on black": ((0, 0, 255, 255), (0, 0, 0, 255)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(STROKES))
def test_a_stroke_of_any_colour_is_repainted(
    server: RunningServer, cat: Image.Image, name: str
) -> None:
    colour, ground = STROKES[name]
    strokes, plain = Image.new("RGBA", (128, 128), ground), Image.new("L", (128, 128))
    strokes.paste(colour, (40, 40, 88, 88))
    plain.paste(255, (40, 40, 88, 88))
    fields = {"init_images": [encoded(cat)], "mask_blur": 0, "inpaint_full_res": False}
    native = {"prompt": "a fox", "image": encoded(cat), "seed": 7, "num_inference_steps": 2}

    def ours(mask: Image.Image) -> bytes:
        fields = {**native, "mask_image": encoded(mask)}
        answer = server.http.post("/inpaint", json=fields, headers={"accept": "image/png"})
        assert answer.status_code == 200, answer.text
        return answer.content

    def theirs(mask: Image.Image) -> list[bytes]:
        files: list[bytes] = ask(server, "img2img", **fields, mask=encoded(mask))["files"]
        return files

    assert theirs(strokes) == theirs(plain)
    assert ours(strokes) == ours(plain)


def test_a_strength_that_leaves_nothing_to_do_leaves_one_step(
    server: RunningServer, cat: Image.Image
) -> None:
    for steps in (2, 49):
        told = ask(server, "img2img", init_images=[encoded(cat)], denoising_strength=0, steps=steps)
        assert told["info"]["ignored"] == ["denoising_strength"]


# --- hires fix -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_second_pass_works_from_each_picture_with_its_seed(server: RunningServer) -> None:
    first = {"width": 64, "height": 64, "batch_size": 2}
    told = ask(
        server,
        "txt2img",
        **first,
        enable_hr=True,
        hr_resize_x=128,
        hr_upscaler="R-ESRGAN 4x+",
        hr_second_pass_steps=2,
        hr_sampler_name="Euler a",
        hr_prompt="a blue fox",
        denoising_strength=0.5,
    )

    assert [picture.size for picture in told["pictures"]] == [(128, 128), (128, 128)]
    assert told["info"]["all_seeds"] == [7, 8]
    assert told["info"]["ignored"] == ["hr_upscaler"]
    text = told["pictures"][1].info["parameters"]
    assert text.startswith("a blue fox")
    assert "Steps: 4, Sampler: Euler a" in text  # half of them are done, which makes two
    assert "Denoising strength: 0.5" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("upscaler", "how"), [({}, "bilinear"), ({"hr_upscaler": "Latent (bicubic)"}, "bicubic")]
)
def test_hires_fix_may_enlarge_latents_and_does_when_it_is_not_told_what(
    server: RunningServer, upscaler: dict[str, str], how: str
) -> None:
    small = {"width": 64, "height": 64}
    told = ask(
        server, "txt2img", **small, **upscaler, enable_hr=True, hr_scale=2, denoising_strength=1
    )
    first = ask(server, "txt2img", **small)["files"][0]
    second = server.http.post(
        "/img2img",
        json={
            "prompt": "a red fox",
            "image": base64.b64encode(first).decode(),
            "latent_resize": how,
            "strength": 1,
            "width": 128,
            "height": 128,
            "seed": 7,
            "num_inference_steps": 2,
            "guidance_scale": 7,
            "scheduler": "euler",
        },
        headers={"accept": "image/png"},
    )

    assert told["info"]["ignored"] == []
    assert told["files"][0] == second.content


@pytest.mark.parametrize(
    ("fields", "named"), [({"hr_scale": 4}, "hr_scale"), ({"hr_resize_y": 10**400}, "hr_resize_x")]
)
def test_a_size_beyond_the_model_is_the_largest_that_it_makes(
    server: RunningServer, fields: dict[str, int], named: str
) -> None:
    told = ask(server, "txt2img", steps=1, enable_hr=True, **fields)

    assert told["info"]["ignored"] == [named]
    assert told["pictures"][0].size == (128, 128)


@pytest.mark.slow
def test_a_second_pass_by_another_model(tmp_path: Path) -> None:
    """LoRAs that do not fit it are left out; a model that cannot do one is refused before."""
    tiny_families.BUILDERS["auraflow"](tmp_path / "models" / "flow")
    tiny.BUILDERS["sd1"](tmp_path / "models" / "other")
    (tmp_path / "loras").mkdir()
    fits = lora(192) | {f"{TO_K}.lora_up.weight": (128, 4)}
    save(tmp_path / "loras" / "engraving.safetensors", fits)
    prompt = {"prompt": "a fox <lora:engraving:1>", "enable_hr": True, "hr_scale": 1}
    with running(tmp_path) as server:
        told = ask(server, "txt2img", **prompt, hr_checkpoint_name="other")
        jobs = jobs_in(tmp_path)
        only = server.http.post(f"{API}/txt2img", json=prompt | {"hr_checkpoint_name": "flow"})

        assert "prompt <lora:engraving>" in told["info"]["ignored"]
        assert "does not draw over pictures" in refused(only, 422)["detail"]
        assert jobs_in(tmp_path) == jobs


# --- whose -------------------------------------------------------------------------------


def test_settings_progress_and_interrupts_are_the_callers_own(idle_server: RunningServer) -> None:
    ada, bob = (issue(idle_server, name)["token"] for name in ("ada", "bob"))
    with client(idle_server, ada) as of_ada, client(idle_server, bob) as of_bob:
        of_ada.post(f"{API}/options", json={"samples_format": "webp"})
        job = waiting_job(of_ada, prompt="a fox")

        assert of_ada.get(f"{API}/options").json()["samples_format"] == "webp"
        assert of_bob.get(f"{API}/options").json()["samples_format"] == "png"

        waits, idles = (http.get(f"{API}/progress").json() for http in (of_ada, of_bob))
        assert (waits["progress"], waits["state"]["job_count"]) == (0.0, 1)
        assert (idles["progress"], idles["state"]["job_count"]) == (0.0, 0)
        assert idles["current_image"] is None

        for route in ("interrupt", "skip"):
            assert of_bob.post(f"{API}/{route}").json() == {}
            assert idle_server.http.post(f"{API}/{route}").json() == {}  # an owner's neither
        assert of_ada.get(f"/jobs/{job}").json()["status"] == "queued"
        assert of_ada.post(f"{API}/interrupt").json() == {}
        assert of_ada.get(f"/jobs/{job}").json()["status"] == "cancelled"


def waiting_job(http: httpx2.Client, **fields: Any) -> str:
    """The id of a job of a request whose caller does not wait for it any more."""
    before = {job["id"] for job in http.get("/jobs").json()["jobs"]}
    with pytest.raises(httpx2.ReadTimeout):
        http.post(f"{API}/txt2img", json=fields, timeout=0.5)
    new: str = eventually(
        lambda: [job["id"] for job in http.get("/jobs").json()["jobs"] if job["id"] not in before]
    )[0]
    return new


def test_an_interrupt_ends_the_current_request_alone(idle_server: RunningServer) -> None:
    """Other programs on this machine, or with this token, and requests that wait go on."""
    with client(idle_server, issue(idle_server, "several")["token"]) as http:
        native = http.post(
            "/txt2img", json={"prompt": "a fox"}, headers={"prefer": "respond-async"}
        ).json()["id"]
        first = waiting_job(http, prompt="an owl")
        second = waiting_job(http, prompt="a cat")

        def statuses() -> list[str]:
            return [http.get(f"/jobs/{job}").json()["status"] for job in (native, first, second)]

        assert http.get(f"{API}/progress").json()["current_task"] == f"task({first})"
        http.post(f"{API}/interrupt")
        assert statuses() == ["queued", "cancelled", "queued"]
        http.post(f"{API}/skip")
        assert statuses() == ["queued", "cancelled", "cancelled"]
        http.post(f"{API}/interrupt")
        assert statuses() == ["queued", "cancelled", "cancelled"]
        assert http.get(f"{API}/progress").json()["state"]["job_count"] == 0


def test_options_are_kept_for_the_token_that_set_them(idle_server: RunningServer) -> None:
    changes = {
        "send_seed": False,
        "face_restoration_model": "GFPGAN",
        "an_extensions": {"key": [1]},
        "jpeg_quality": 95,
    }
    tokens = [issue(idle_server, name)["token"] for name in ("a", "b")]
    with client(idle_server, tokens[0]) as ours, client(idle_server, tokens[1]) as others:
        before = ours.get(f"{API}/options").json()
        answer = ours.post(f"{API}/options", json=changes)

        assert before["send_seed"] is True
        assert ours.get(f"{API}/options").json() == before | changes
        assert others.get(f"{API}/options").json() == before
        named = answer.headers["x-ignored-fields"].split(", ")
        assert named == ["face_restoration_model", "an_extensions", "jpeg_quality"]
        ours.post(f"{API}/options", json=before | {"an_extensions": None})
        assert ours.get(f"{API}/options").json() == before


def test_all_options_may_be_sent_back(idle_server: RunningServer) -> None:
    with client(idle_server, issue(idle_server, "whole")["token"]) as http:
        whole = http.get(f"{API}/options").json()
        answer = http.post(f"{API}/options", json=whole)

        assert "x-ignored-fields" not in answer.headers
        assert http.get(f"{API}/options").json() == whole


def test_options_have_a_largest_size(idle_server: RunningServer) -> None:
    with client(idle_server, issue(idle_server, "hoarder")["token"]) as http:
        for number in range(2):
            answer = http.post(f"{API}/options", json={f"key{number}": "x" * 40_000})

        assert "65536 bytes" in refused(answer, 422)["detail"]
        assert "key1" not in http.get(f"{API}/options").json()


@pytest.mark.slow
def test_a_request_that_only_half_fits_the_queue_leaves_nothing_of_its_own_there(
    tmp_path: Path,
) -> None:
    """What was there before, and what somebody waits for, stays."""
    crowded = {"DARKROOM_QUEUE__MAX_PENDING_PER_CLIENT": "2"}
    with running(tmp_path, process="web", **crowded) as server:
        token = issue(server, "ada")["token"]
        with client(server, token) as http:
            http.post("/txt2img", json={"prompt": "a cat"}, headers={"prefer": "respond-async"})

            answer = http.post(f"{API}/txt2img", json=SMALL | {"batch_size": 8, "n_iter": 3})

            refused(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
            jobs = http.get("/jobs").json()["jobs"]
    assert [(job["request"]["prompt"], job["status"]) for job in jobs] == [
        ("a red fox", "cancelled"),
        ("a cat", "queued"),
    ]


def test_a_client_that_asks_again_gets_the_job_that_is_there(idle_server: RunningServer) -> None:
    """With a random seed too: it sent the same request because it has no answer."""
    before = jobs_in(idle_server.data_dir)
    with client(idle_server, issue(idle_server, "hasty")["token"]) as http:
        for prompt in ("a fox", "a fox", "a cat", "a fox"):
            with pytest.raises(httpx2.ReadTimeout):
                http.post(f"{API}/txt2img", json={"prompt": prompt, "n_iter": 10}, timeout=0.5)
        eventually(lambda: len(http.get("/jobs").json()["jobs"]) == 4)
        assert http.get(f"{API}/progress").json()["state"]["job_count"] == 2
        for _request in ("a fox", "a cat"):
            http.post(f"{API}/interrupt")
        jobs = http.get("/jobs").json()["jobs"]

    assert jobs_in(idle_server.data_dir) == before + 4  # ten pictures are two jobs
    assert {job["status"] for job in jobs} == {"cancelled"}


# 512×512 pixels: enlarged eight times, more tiles than one request may have.
LARGE = encoded(Image.new("RGB", (512, 512)))


# --- refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "fields", "status"),
    [
        ("txt2img", {"sampler_name": "Quantum"}, 400),
        ("txt2img", {"script_name": "x/y/z plot"}, 422),
        ("txt2img", {"script_name": "sd upscale"}, 422),
        ("txt2img", {"n_iter": 1000, "batch_size": 8}, 422),
        ("txt2img", {"n_iter": 10**3000, "batch_size": 10**3000}, 422),
        ("txt2img", {"steps": "many"}, 422),
        ("txt2img", {"guidance_rescale": "much"}, 422),
        ("txt2img", {"prompt": "x" * 9000}, 422),
        ("txt2img", {"prompt": "a\x00b"}, 422),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "none"}}, 422),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "x" * 100_000}}, 422),
        ("txt2img", {"override_settings": {"CLIP_stop_at_last_layers": "x"}}, 422),
        ("img2img", {}, 404),
        ("img2img", {"init_images": [""]}, 404),
        ("img2img", {"init_images": ["no picture"]}, 422),
        ("img2img", {"init_images": ["http://169.254.169.254/"]}, 422),
        ("img2img", {"init_images": ["QUJD"]}, 422),
        ("img2img", {"init_images": "QUJD"}, 422),
        ("img2img", {"init_images": [WHITE_PICTURE], **UPSCALE, "script_args": ["", "nan"]}, 422),
        (
            "img2img",
            {"init_images": [WHITE_PICTURE], **UPSCALE, "script_args": ["", 0, "", 99]},
            422,
        ),
        ("img2img", {"init_images": [LARGE], **UPSCALE, "script_args": ["", 0, "", 8]}, 422),
        ("options", {"sd_model_checkpoint": "none"}, 422),
        ("options", {"CLIP_stop_at_last_layers": 99}, 422),
        ("extra-single-image", {}, 422),
        ("extra-single-image", {"image": "QUJD"}, 422),
        ("extra-batch-images", {"imageList": []}, 422),
        ("png-info", {}, 422),
        ("png-info", {"image": "%%"}, 422),
        ("interrogate", {}, 501),
        ("no-such-route", {}, 404),
    ],
)
def test_what_cannot_be_done_is_refused_in_their_shape(
    idle_server: RunningServer, route: str, fields: dict[str, Any], status: int
) -> None:
    before = jobs_in(idle_server.data_dir)

    refused(idle_server.http.post(f"{API}/{route}", json=fields), status)

    assert jobs_in(idle_server.data_dir) == before


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"[" * 100_000, b'{"a":' * 50_000, b'{"prompt":"\\ud800"}', b"\xff\xfe"],
    ids=["cut off", "list", "text", "deep list", "deep object", "half a character", "not UTF-8"],
)
def test_what_is_no_json_object_is_refused(idle_server: RunningServer, body: bytes) -> None:
    for route in ("txt2img", "img2img", "options", "png-info", "extra-single-image"):
        refused(idle_server.http.post(f"{API}/{route}", content=body), 422)


def test_numbers_without_end_are_none(server: RunningServer) -> None:
    """Python's clients send Infinity, which is no JSON; an answer must be."""
    body = b'{"steps": 1, "width": 64, "height": 64, "s_tmax": Infinity, "seed": 1e999}'
    answer = server.http.post(f"{API}/txt2img", content=body)

    assert answer.status_code == 200
    assert "Infinity" not in answer.text


# --- extras and png-info -------------------------------------------------------------------


def test_extras_by_size(server: RunningServer, cat: Image.Image) -> None:
    def size(**fields: Any) -> tuple[int, int]:
        answer = server.http.post(
            f"{API}/extra-single-image",
            json={"image": encoded(cat), "resize_mode": 1, "upscaler_1": "Lanczos", **fields},
        )
        assert answer.status_code == 200, answer.text
        picture: Image.Image = Image.open(io.BytesIO(base64.b64decode(answer.json()["image"])))
        return picture.size

    wanted = {"upscaling_resize_w": 300, "upscaling_resize_h": 200}
    assert size(**wanted) == (300, 200)
    assert size(**wanted, upscaling_crop=False) == (300, 300)
    assert size(**wanted | {"upscaler_1": "None"}) == cat.size


def test_extras_have_a_largest_size(idle_server: RunningServer, photo: Path) -> None:
    text = base64.b64encode(photo.read_bytes()).decode()
    answer = idle_server.http.post(
        f"{API}/extra-single-image",
        json={"image": text, "upscaler_1": "Lanczos", "upscaling_resize": 16},
    )

    assert "16777216 pixels" in refused(answer, 422)["detail"]


def test_a_picture_without_text_says_nothing(idle_server: RunningServer, photo: Path) -> None:
    answer = idle_server.http.post(
        f"{API}/png-info", json={"image": base64.b64encode(photo.read_bytes()).decode()}
    )

    assert answer.json() == {"info": "", "items": {}, "parameters": {}}


def test_a_picture_made_here_can_be_made_again_from_what_it_says(server: RunningServer) -> None:
    made = ask(server, "txt2img", prompt='a "red", fox\nwith: colons', negative_prompt="a, b")

    told = server.http.post(f"{API}/png-info", json={"image": made["images"][0]}).json()

    assert told["info"] == made["info"]["infotexts"][0]
    assert told["parameters"]["Prompt"] == 'a "red", fox\nwith: colons'
    assert told["parameters"]["Negative prompt"] == "a, b"
    native = json.loads(told["items"]["darkroom"])
    again = ask(
        server,
        "txt2img",
        prompt=told["parameters"]["Prompt"],
        negative_prompt=told["parameters"]["Negative prompt"],
        seed=told["parameters"]["Seed"],
        steps=told["parameters"]["Steps"],
        cfg_scale=told["parameters"]["CFG scale"],
        sampler_name=told["parameters"]["Sampler"],
    )
    assert again["files"] == made["files"]
    assert native["prompt"] == told["parameters"]["Prompt"]


@pytest.mark.parametrize("kind", ["jpg", "webp", "png"])
def test_a_picture_in_every_format_says_how_it_was_made(server: RunningServer, kind: str) -> None:
    made = ask(server, "txt2img", override_settings={"samples_format": kind})

    told = server.http.post(f"{API}/png-info", json={"image": made["images"][0]}).json()

    assert told["info"] == made["info"]["infotexts"][0]
    assert told["parameters"]["Seed"] == "7"


# --- LoRAs ---------------------------------------------------------------------------------


@pytest.fixture
def adapters(idle_server: RunningServer) -> Iterator[RunningServer]:
    """A server with a LoRA for its model, one for another, and an embedding."""
    folder = idle_server.data_dir
    files = {
        folder / "loras" / "engraving.safetensors": lora(192),
        folder / "loras" / "anime.safetensors": lora(768),
        folder / "embeddings" / "velvia.safetensors": {"emb_params": (2, 192)},
    }
    for path, shapes in files.items():
        path.parent.mkdir(exist_ok=True)
        save(path, shapes)
    yield idle_server
    for path in files:
        path.unlink()


def test_loras_are_asked_for_in_the_prompt(adapters: RunningServer) -> None:
    prompt = "a fox <lora:engraving:0.5>, ink <lora:engraving> <lora:anime:1> <lora:none:1>"
    with client(adapters, issue(adapters, "painter")["token"]) as http:
        with pytest.raises(httpx2.ReadTimeout):
            http.post(f"{API}/txt2img", json={"prompt": prompt}, timeout=0.5)
        asked = eventually(lambda: http.get("/jobs").json()["jobs"])[0]["request"]
        http.post(f"{API}/interrupt")

    assert asked["prompt"] == "a fox , ink"
    assert asked["loras"] == [{"name": "engraving", "scale": 1.5}]


def test_the_settings_of_a_picture_name_its_loras() -> None:
    """So that they make the same picture when they are sent again."""
    request = RESOLVED[Task.TXT2IMG](
        prompt="a fox\nat night", negative_prompt="x", width=64, height=64, guidance_scale=3,
        num_inference_steps=2, seed=7, scheduler="ddim", model="tintype",
        loras=(
            Lora(name="ink", scale=0.75),
            Lora(name="a:b"),
            Lora(name="style/wash", scale=-1, text_scale=0.5),
        ),
    )  # fmt: skip
    found = metadata.parse_parameters(metadata.parameters(request, 0))

    assert found["Prompt"] == "a fox\nat night <lora:ink:0.75> <lora:style/wash:0.5:-1>"


def test_an_alias_is_the_trainers_name_where_one_lora_has_it(idle_server: RunningServer) -> None:
    folder = idle_server.data_dir / "loras"
    folder.mkdir(exist_ok=True)
    files = {"aliased-1": "Pencil", "aliased-2": "last", "aliased-3": "last"}
    for name, output_name in files.items():
        save(folder / f"{name}.safetensors", lora(192), ss_output_name=output_name)
    listed = idle_server.http.get(f"{API}/loras").json()
    for name in files:
        (folder / f"{name}.safetensors").unlink()

    aliases = {entry["name"]: entry["alias"] for entry in listed if entry["name"] in files}
    assert aliases == {"aliased-1": "Pencil", "aliased-2": "aliased-2", "aliased-3": "aliased-3"}


def test_loras_and_embeddings_are_listed(adapters: RunningServer) -> None:
    loras = adapters.http.get(f"{API}/loras").json()
    embeddings = adapters.http.get(f"{API}/embeddings").json()

    # The shared server may have others as well, of other tests.
    assert {(entry["name"], entry["path"]) for entry in loras} >= {
        ("anime", "anime.safetensors"),
        ("engraving", "engraving.safetensors"),
    }
    assert embeddings["loaded"]["velvia"]["vectors"] == 2
    assert embeddings["loaded"]["velvia"]["shape"] == 192


def test_cmd_flags_say_where_it_listens(server: RunningServer) -> None:
    """This server listens on this machine alone."""
    flags = server.http.get("/sdapi/v1/cmd-flags").json()

    assert flags == {"api": True, "listen": False, "port": httpx2.URL(server.url).port}
