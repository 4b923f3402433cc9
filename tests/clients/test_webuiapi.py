"""webuiapi, unmodified from the registry: a script written with it changes one address."""

import threading
from pathlib import Path

import pytest
import webuiapi
from PIL import Image, ImageChops, ImageDraw

from tests.serving import RunningServer
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.slow

SIZE = (128, 128)


@pytest.fixture
def api(locked_server: RunningServer, token: str) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(
        baseurl=f"{locked_server.url}/sdapi/v1",
        username="anybody",
        password=token,
        sampler="Euler a",
        steps=4,
    )


@pytest.fixture
def picture(photo: Path) -> Image.Image:
    with Image.open(photo) as opened:
        return opened.convert("RGB").resize(SIZE)


def test_a_picture_from_words_comes_with_what_it_was_made_from(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(prompt="a red fox", negative_prompt="a house", seed=7, cfg_scale=3)

    assert made.image.size == SIZE
    assert made.info["seed"] == 7
    assert made.info["all_seeds"] == [7]
    assert made.info["prompt"] == "a red fox"
    assert made.info["negative_prompt"] == "a house"
    assert made.info["sampler_name"] == "Euler a"
    assert made.info["steps"] == 4
    assert made.info["cfg_scale"] == 3
    assert made.info["sd_model_name"] == "tintype"
    assert made.info["infotexts"] == [made.image.info["parameters"]]
    assert made.info["ignored"] == ["width", "height"]  # 512×512 is more than this model makes
    assert made.parameters["prompt"] == "a red fox"


def test_several_pictures_have_a_seed_each(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(prompt="a red fox", seed=7, batch_size=2, n_iter=2, steps=1)
    alone = api.txt2img(prompt="a red fox", seed=9, steps=1)

    assert made.info["all_seeds"] == [7, 8, 9, 10]
    assert len(made.images) == 4
    assert made.images[2].tobytes() == alone.image.tobytes()


def test_hires_fix_gives_a_larger_picture(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(
        prompt="a red fox",
        seed=7,
        width=64,
        height=64,
        enable_hr=True,
        hr_scale=2,
        hr_upscaler=webuiapi.HiResUpscaler.Lanczos,
        denoising_strength=0.5,
    )

    assert made.image.size == SIZE
    assert made.info["ignored"] == []
    assert made.info["denoising_strength"] == 0.5


def test_a_picture_from_a_picture(api: webuiapi.WebUIApi, picture: Image.Image) -> None:
    made = api.img2img(images=[picture], prompt="a cat", seed=7, width=128, height=128)

    assert made.image.size == SIZE
    assert made.info["denoising_strength"] == 0.75


def test_what_is_not_under_the_mask_stays(api: webuiapi.WebUIApi, picture: Image.Image) -> None:
    mask = Image.new("RGB", SIZE)
    ImageDraw.Draw(mask).ellipse((40, 40, 88, 88), fill="white")

    made = api.img2img(
        images=[picture],
        mask_image=mask,
        mask_blur=0,
        inpainting_fill=1,
        inpaint_full_res=False,
        width=128,
        height=128,
        prompt="a fox",
        seed=7,
    )

    changed = ImageChops.difference(made.image.convert("RGB"), picture).getbbox()
    assert changed is not None
    left, top, right, bottom = changed
    assert 38 <= left < right <= 91
    assert 38 <= top < bottom <= 91


def test_a_picture_tells_how_it_was_made(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(prompt="a fox, red: quite", negative_prompt="a house", seed=7)

    told = api.png_info(made.image)

    assert told.info == made.info["infotexts"][0]
    assert told.parameters["Prompt"] == "a fox, red: quite"
    assert told.parameters["Negative prompt"] == "a house"
    assert told.parameters["Seed"] == "7"
    assert told.parameters["Size-1"] == "128"


def test_extras_enlarge(api: webuiapi.WebUIApi, picture: Image.Image) -> None:
    one = api.extra_single_image(
        picture, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5
    )
    two = api.extra_batch_images(
        [picture, picture], upscaler_1=webuiapi.Upscaler.ESRGAN_4x, upscaling_resize=2
    )

    assert one.image.size == (192, 192)
    assert [image.size for image in two.images] == [(256, 256), (256, 256)]
    assert "upscaler_1" in two.info


def test_options_and_the_model_can_be_set(api: webuiapi.WebUIApi) -> None:
    options = api.get_options()
    options["samples_format"] = "jpg"
    api.set_options(options)
    api.util_set_model("TINTYPE v1")  # the closest one is taken

    assert api.get_options()["samples_format"] == "jpg"
    assert api.util_get_current_model() == "tintype"
    assert api.util_get_model_names() == ["tintype"]
    assert api.txt2img(prompt="a fox", steps=1).image.format == "JPEG"


def test_lists_are_there(api: webuiapi.WebUIApi) -> None:
    assert "Euler a" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    assert "Lanczos" in [upscaler["name"] for upscaler in api.get_upscalers()]
    for names in (api.get_sd_vae(), api.get_loras(), api.get_hypernetworks()):
        assert names == []
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_face_restorers() == api.get_realesrgan_models() == api.get_prompt_styles() == []
    assert api.get_latent_upscale_modes()
    assert api.get_cmd_flags()
    assert api.get_memory().keys() == {"ram", "cuda"}
    assert api.get_scripts() == {"txt2img": [], "img2img": ["sd upscale"]}
    assert api.refresh_checkpoints() == {}


def test_an_interrupt_from_another_thread_ends_the_wait(api: webuiapi.WebUIApi) -> None:
    results: list[webuiapi.WebUIApiResult] = []
    thread = threading.Thread(
        target=lambda: results.append(api.txt2img(prompt="a fox", steps=150, batch_size=8))
    )
    thread.start()
    eventually(lambda: api.get_progress()["current_image"] is not None)
    shown = api.get_progress()
    assert shown["state"]["job_count"] == 1
    assert 0 < shown["progress"] < 1

    assert api.interrupt() == {}
    thread.join(PATIENCE_S)

    assert len(results) == 1
    assert results[0].images  # what it looked like last
    assert results[0].info["prompt"] == "a fox"


def test_ready_is_told(api: webuiapi.WebUIApi) -> None:
    api.util_wait_for_ready(check_interval=0.1)

    assert api.skip() == {}


def test_sd_upscale_draws_a_picture_tile_by_tile(
    api: webuiapi.WebUIApi, picture: Image.Image
) -> None:
    made = api.img2img(
        images=[picture],
        prompt="a cat",
        seed=7,
        width=128,
        height=128,
        denoising_strength=0.5,
        script_name="SD upscale",
        script_args=["", 32, "Lanczos", 1.5],
    )

    assert made.image.size == (192, 192)
    assert made.info["all_seeds"] == [7, 8, 9, 10]


def test_what_cannot_be_done_is_said(api: webuiapi.WebUIApi, picture: Image.Image) -> None:
    with pytest.raises(RuntimeError, match=r"400.*Sampler not found"):
        api.txt2img(prompt="a fox", sampler_name="Quantum")
    with pytest.raises(RuntimeError, match=r"422.*Script not found"):
        api.txt2img(prompt="a fox", script_name="Prompt matrix")
    with pytest.raises(RuntimeError, match=r"404.*Init image not found"):
        api.img2img(images=[], prompt="a fox")
    with pytest.raises(RuntimeError, match="501"):
        api.interrogate(picture)
