"""Fields that a model does not honour are refused by name, and left out for other programs."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.api.parse import Body
from darkroom.api.prepare import Sources
from darkroom.catalog.loras import AdapterCatalog
from darkroom.catalog.model_entry import ModelEntry
from darkroom.catalog.models import ModelCatalog
from darkroom.compat.a1111 import fields
from darkroom.compat.a1111.translate import honoured, translate
from darkroom.compat.ignored import Ignored
from darkroom.compat.openai import translate as openai
from darkroom.requests import Task
from tests.catalog.conftest import FLOW, QWEN_VAE, transformer_folder
from tests.serving import RunningServer, running

Z_IMAGE = {"scheduler": {**FLOW, "shift": 6.0}}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with models of several families, whose weights are a few zeros."""
    box = tmp_path_factory.mktemp("fields")
    transformer_folder(box, "Flux2KleinPipeline", "klein", is_distilled=True)
    transformer_folder(box, "ZImagePipeline", "z", **Z_IMAGE)
    transformer_folder(box, "FluxKontextPipeline", "kontext", {"guidance_embeds": True})
    transformer_folder(box, "QwenImagePipeline", "qwen", vae=QWEN_VAE)
    transformer_folder(box, "PixArtSigmaPipeline", "pixart")
    return box


@pytest.fixture(scope="module")
def studio(box: Path) -> Iterator[RunningServer]:
    """A server whose queue nobody works on."""
    with running(box, process="web") as started:
        yield started


@pytest.fixture(scope="module")
def picture(photo: Path) -> str:
    return base64.b64encode(photo.read_bytes()).decode()


ROUTES = {"image": "/img2img", "mask_image": "/inpaint"}
TXT2IMG: tuple[str, ...] = ()
IMG2IMG = ("image",)
INPAINT = ("image", "mask_image")
REFUSED: list[tuple[str, tuple[str, ...], str, Any, str]] = [
    ("klein", TXT2IMG, "negative_prompt", "ugly", "takes no negative prompt"),
    ("klein", TXT2IMG, "guidance_scale", 4.0, "is distilled to need no guidance"),
    ("pixart", TXT2IMG, "loras", [{"name": "ink"}], "takes no LoRAs"),
    ("klein", TXT2IMG, "clip_skip", 1, "leaves out no layers"),
    ("z", TXT2IMG, "guidance_rescale", 0.5, "has no classifier-free guidance"),
    ("z", INPAINT, "padding_mask_crop", 8, "repaints no crop"),
    ("z", INPAINT, "masked_content", "noise", "no access to its latents"),
    ("z", IMG2IMG, "latent_resize", "bilinear", "no access to its latents"),
]


@pytest.mark.parametrize(("model", "pictures", "field", "value", "words"), REFUSED)
def test_a_field_that_a_model_cannot_honour_is_refused_by_name(
    studio: RunningServer,
    picture: str,
    model: str,
    pictures: tuple[str, ...],
    field: str,
    value: Any,
    words: str,
) -> None:
    path = ROUTES[pictures[-1]] if pictures else "/txt2img"
    sent = {"prompt": "a fox", "model": model, field: value, **dict.fromkeys(pictures, picture)}

    answer = studio.http.post(path, json=sent)

    assert answer.status_code == 422, answer.text
    details = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert words in details[f"#/{field}"]
    assert model in details[f"#/{field}"]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "klein", "negative_prompt": "", "guidance_scale": 1.0, "loras": []},
        {"model": "klein", "guidance_scale": 0.0, "clip_skip": 0},
        {"model": "z", "negative_prompt": "ugly", "guidance_scale": 3.0},
        {"model": "qwen", "negative_prompt": "ugly", "guidance_scale": 3.0},
    ],
)
def test_a_value_that_asks_for_nothing_is_no_fault(
    studio: RunningServer, fields: dict[str, Any]
) -> None:
    request = studio.submit(**fields)["request"]

    assert {name: request[name] for name in fields} == fields


def test_a_request_that_is_sent_again_is_not_refused(studio: RunningServer, picture: str) -> None:
    headers = {"prefer": "respond-async"}
    sent = {"prompt": "a fox", "model": "kontext", "references": [picture]}
    first = studio.http.post("/edit", json=sent, headers=headers).json()["request"]

    again = studio.http.post("/edit", json=first, headers=headers)

    assert again.status_code == 202, again.text
    assert again.json()["request"] == first


def test_a_strength_that_leaves_a_pipeline_one_step_is_enough(
    studio: RunningServer, picture: str
) -> None:
    sent = {"prompt": "a fox", "image": picture, "num_inference_steps": 4, "strength": 0.1}

    for model, status in (("z", 202), ("tintype", 422)):
        answer = studio.http.post(
            "/img2img", json={**sent, "model": model}, headers={"prefer": "respond-async"}
        )
        assert answer.status_code == status, answer.text


# --- other programs' requests --------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(box: Path) -> ModelCatalog:
    return ModelCatalog(box / "models", "klein")


@pytest.fixture(scope="module")
def adapters(box: Path) -> AdapterCatalog:
    return AdapterCatalog(box / "loras", box / "embeddings")


def test_an_a1111_client_gets_its_picture_and_is_told(
    catalog: ModelCatalog, adapters: AdapterCatalog
) -> None:
    asked = fields.Txt2Img.model_validate(
        {"prompt": "a fox <lora:ink:0.5>", "negative_prompt": "ugly", "cfg_scale": 7, "steps": 20}
    )

    made = translate(asked, catalog, adapters, {}, Ignored())

    assert made.ignored.names[-2:] == ["negative_prompt", "cfg_scale"]
    assert "prompt <lora:ink>" in made.ignored.names
    assert not {"negative_prompt", "guidance_scale"} & made.values.keys()
    assert made.values["num_inference_steps"] == 20


@pytest.mark.parametrize(("model", "steps", "scale"), [("klein", 4, 0.0), ("z", 50, 5.0)])
def test_what_an_a1111_client_leaves_out_is_the_models_own(
    catalog: ModelCatalog, adapters: AdapterCatalog, model: str, steps: int, scale: float
) -> None:
    options = {"override_settings": {"sd_model_checkpoint": model}}
    asked = fields.Txt2Img.model_validate({"prompt": "a fox", **options})

    made = translate(asked, catalog, adapters, {}, Ignored())

    assert made.values["num_inference_steps"] == steps
    assert made.values["guidance_scale"] == scale
    assert "cfg_scale" not in made.ignored.names


def test_an_a1111_client_repaints_whole_pictures_where_there_is_no_crop(
    catalog: ModelCatalog,
) -> None:
    entry: ModelEntry = catalog.find("z")
    ignored = Ignored()
    values = {"strength": 0.5, "padding_mask_crop": 0, "masked_content": "noise"}

    assert honoured(Task.INPAINT, values, entry, ignored) == {"strength": 0.5}
    assert ignored.names == ["inpaint_full_res", "inpainting_fill"]


@pytest.fixture(scope="module")
def nothing() -> Sources:
    """Looks up no picture: these requests have none in fields."""
    return Sources(None, None, 0)  # type: ignore[arg-type]


def test_an_openai_client_gets_its_picture_and_is_told(
    catalog: ModelCatalog, nothing: Sources
) -> None:
    sent = {"model": "klein", "prompt": "a fox", "negative_prompt": "ugly", "guidance_scale": 4.0}

    made = openai.translate(Task.TXT2IMG, Body({**sent, "clip_skip": 2}), catalog, nothing)

    assert made.ignored.names == ["negative_prompt", "guidance_scale", "clip_skip"]
    assert made.request.negative_prompt == ""
    assert made.request.guidance_scale is None


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [({}, []), ({"strength": 0.3}, ["strength"]), ({"input_fidelity": "high"}, ["input_fidelity"])],
)
def test_an_openai_client_edits_without_a_strength_where_there_is_none(
    catalog: ModelCatalog, nothing: Sources, fields: dict[str, Any], ignored: list[str]
) -> None:
    sent = Body({"model": "kontext", "prompt": "a fox", **fields}, {"image": b"a picture"})

    made = openai.translate(Task.IMG2IMG, sent, catalog, nothing)

    assert made.ignored.names == ignored
    assert "strength" not in made.request.model_fields_set
