"""What the catalog reads from folders of diffusion transformers: sizes, defaults, fields."""

from pathlib import Path
from typing import Any

import pytest

from darkroom.catalog.families import Guidance
from darkroom.catalog.models import ModelCatalog
from darkroom.requests import RESOLVED, Task, Txt2Img
from tests.catalog.conftest import QWEN_VAE, edit, folder, transformer_folder

Z_IMAGE_SHIFT = {"shift": 6.0}
DC_VAE = {"encoder_block_out_channels": [1] * 6, "latent_channels": 32}


@pytest.mark.parametrize(
    ("pipeline", "family", "multiple", "parts"),
    [
        ("FluxPipeline", "flux", 16, {"transformer": {"guidance_embeds": True}}),
        ("FluxKontextPipeline", "flux-kontext", 16, {"transformer": {"guidance_embeds": True}}),
        ("Flux2KleinPipeline", "flux2-klein", 16, {}),
        ("Flux2Pipeline", "flux2", 16, {"transformer": {"guidance_embeds": True}}),
        ("ZImagePipeline", "z-image", 16, {"scheduler": Z_IMAGE_SHIFT}),
        ("QwenImagePipeline", "qwen-image", 16, {"vae": QWEN_VAE}),
        ("QwenImageEditPipeline", "qwen-image-edit", 16, {"vae": QWEN_VAE}),
        ("QwenImageEditPlusPipeline", "qwen-image-edit-plus", 16, {"vae": QWEN_VAE}),
        ("SanaPipeline", "whole", 32, {"transformer": {"sample_size": 32}, "vae": DC_VAE}),
        ("StableDiffusion3Pipeline", "sd3", 16, {"transformer": {"patch_size": 2}}),
    ],
)
def test_sizes_are_those_that_the_pipeline_can_make(
    box: Path,
    catalog: ModelCatalog,
    pipeline: str,
    family: str,
    multiple: int,
    parts: dict[str, dict[str, Any]],
) -> None:
    transformer_folder(box, pipeline, **parts)

    info = catalog.find("model").info

    assert info.family == family
    assert (info.defaults.width, info.defaults.height) == (1024, 1024)
    assert info.limits.multiple_of == multiple
    assert info.limits.max_pixels == 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("pipeline", "positions", "side", "largest"),
    [
        ("StableDiffusion3Pipeline", 192, 1024, 3072),  # of a side
        ("StableDiffusion3Pipeline", 384, 1024, 4096),
        ("AuraFlowPipeline", 4096, 1024, 1024),  # of a picture
        ("AuraFlowPipeline", 9216, 1024, 1536),
        ("AuraFlowPipeline", 1024, 512, 512),
    ],
)
def test_sizes_end_where_the_network_knows_no_more_positions(
    box: Path, catalog: ModelCatalog, pipeline: str, positions: int, side: int, largest: int
) -> None:
    """AuraFlow would read past the end of its table, which a GPU answers by stopping."""
    parts = {"sample_size": 128, "patch_size": 2, "pos_embed_max_size": positions}
    transformer_folder(box, pipeline, transformer=parts)

    info = catalog.find("model").info

    assert (info.defaults.width, info.limits.max_side) == (side, largest)


OFF = [
    ("Flux2KleinPipeline", "model", {"is_distilled": True}, 4),
    ("FluxPipeline", "model", {"transformer": {"guidance_embeds": False}}, 4),
    ("ZImagePipeline", "model", {"scheduler": {"shift": 3.0}}, 9),
    ("ZImagePipeline", "z-turbo", {"scheduler": Z_IMAGE_SHIFT}, 9),
    ("StableDiffusion3Pipeline", "stable-diffusion-3.5-large-turbo", {}, 4),
    ("QwenImagePipeline", "Qwen-Image-Lightning-4steps", {"vae": QWEN_VAE}, 4),
    ("Krea2Pipeline", "model", {"is_distilled": True}, 8),
]


@pytest.mark.parametrize(("pipeline", "name", "parts", "steps"), OFF)
def test_distilled_models_take_few_steps_and_no_guidance(
    box: Path, catalog: ModelCatalog, pipeline: str, name: str, parts: dict[str, Any], steps: int
) -> None:
    transformer_folder(box, pipeline, name, **parts)

    defaults = catalog.find(name).info.defaults

    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, 0.0)


ON = [
    ("Flux2KleinPipeline", "model", {"is_distilled": False}, 50, 4.0),
    ("Flux2Pipeline", "model", {"transformer": {"guidance_embeds": True}}, 50, 4.0),
    ("FluxPipeline", "model", {"transformer": {"guidance_embeds": True}}, 28, 3.5),
    ("FluxPipeline", "dev-turbo", {"transformer": {"guidance_embeds": True}}, 4, 3.5),
    ("ZImagePipeline", "model", {"scheduler": Z_IMAGE_SHIFT}, 50, 5.0),
    ("StableDiffusion3Pipeline", "hyperreal", {}, 28, 7.0),
    ("QwenImagePipeline", "de-turbo", {"vae": QWEN_VAE}, 50, 4.0),
    ("QwenImagePipeline", "deturbo", {"vae": QWEN_VAE}, 50, 4.0),
]


@pytest.mark.parametrize(("pipeline", "name", "parts", "steps", "scale"), ON)
def test_others_take_what_their_pipelines_do(
    box: Path,
    catalog: ModelCatalog,
    pipeline: str,
    name: str,
    parts: dict[str, Any],
    steps: int,
    scale: float,
) -> None:
    transformer_folder(box, pipeline, name, **parts)

    defaults = catalog.find(name).info.defaults

    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, scale)


@pytest.mark.parametrize(
    ("name", "scheduler", "steps", "sampler"),
    [
        ("model", {"_class_name": "EulerAncestralDiscreteScheduler"}, 4, "euler_a_sgm_uniform"),
        ("sdxl-lightning-8step", {}, 8, "euler_a_sgm_uniform"),
        ("dreamshaper-lcm", {}, 4, "lcm"),
    ],
)
def test_distilled_unets_are_known_by_their_scheduler_or_name(
    box: Path,
    catalog: ModelCatalog,
    name: str,
    scheduler: dict[str, Any],
    steps: int,
    sampler: str,
) -> None:
    path = folder(box, name, "sdxl")
    if scheduler:
        config = path / "scheduler" / "scheduler_config.json"
        edit(config, timestep_spacing="trailing", **scheduler)

    defaults = catalog.find(name).info.defaults

    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, 0.0)
    assert defaults.scheduler == sampler


def test_a_model_of_velocity_with_trailing_steps_is_not_distilled(
    box: Path, catalog: ModelCatalog
) -> None:
    config = folder(box, kind="sdxl") / "scheduler" / "scheduler_config.json"
    edit(
        config,
        _class_name="EulerDiscreteScheduler",
        timestep_spacing="trailing",
        prediction_type="v_prediction",
    )

    assert catalog.find("model").info.defaults.num_inference_steps == 25


@pytest.mark.parametrize(
    ("index", "pipeline"),
    [
        ("FluxImg2ImgPipeline", "FluxPipeline"),
        ("ZImageImg2ImgPipeline", "ZImagePipeline"),
        ("StableDiffusion3InpaintPipeline", "StableDiffusion3Pipeline"),
        ("QwenImageEditInpaintPipeline", "QwenImageEditInpaintPipeline"),
    ],
)
def test_a_folder_saved_from_another_tasks_pipeline_does_all_tasks(
    box: Path, catalog: ModelCatalog, index: str, pipeline: str
) -> None:
    transformer_folder(box, index)

    spec = catalog.find("model").spec

    assert spec.pipeline == pipeline
    assert index in spec.pipelines.values()
    assert set(spec.pipelines) == set(spec.family.tasks)


EVERY = {"width", "height", "num_inference_steps", "num_images", "seed", "output_format"}


@pytest.mark.parametrize(
    ("pipeline", "parts", "has", "lacks"),
    [
        (
            "FluxPipeline",
            {"transformer": {"guidance_embeds": True}},
            {"negative_prompt", "guidance_scale", "strength", "padding_mask_crop", "loras"},
            {"clip_skip", "latent_resize", "masked_content", "guidance_rescale"},
        ),
        ("Flux2KleinPipeline", {}, {"guidance_scale"}, {"negative_prompt", "mask_blur"}),
        (
            "Flux2KleinPipeline",
            {"is_distilled": True},
            set(),
            {"negative_prompt", "guidance_scale"},
        ),
        (
            "ZImagePipeline",
            {},
            {"negative_prompt", "strength", "keep_unmasked"},
            {"padding_mask_crop"},
        ),
        ("SanaPipeline", {"vae": DC_VAE}, {"negative_prompt"}, {"strength", "mask_blur", "loras"}),
    ],
)
def test_fields_say_what_a_model_takes(
    box: Path,
    catalog: ModelCatalog,
    pipeline: str,
    parts: dict[str, Any],
    has: set[str],
    lacks: set[str],
) -> None:
    transformer_folder(box, pipeline, **parts)

    fields = set(catalog.find("model").info.fields)

    assert EVERY | has <= fields
    assert not fields & (lacks | {"prompt", "image", "mask_image"})


def test_unets_take_every_field_of_their_tasks(catalog: ModelCatalog) -> None:
    info = catalog.find("tintype").info
    asked = {
        name
        for task in info.tasks
        for name, field in RESOLVED[task].model_fields.items()
        if name not in ("prompt", "image", "mask_image")
    }

    assert set(info.fields) == asked


def test_a_pipelines_call_has_its_own_words(box: Path, catalog: ModelCatalog) -> None:
    transformer_folder(box, "FluxKontextPipeline", transformer={"guidance_embeds": True})
    request = RESOLVED[Task.TXT2IMG](
        prompt="a fox",
        negative_prompt="ugly",
        width=384,
        height=256,
        num_inference_steps=9,
        guidance_scale=2.5,
        seed=1,
        scheduler="native",
        model="model",
    )
    assert isinstance(request, Txt2Img)

    spec = catalog.find("model").spec

    assert spec.guidance is Guidance.EMBEDDED
    assert spec.call_arguments(request) == {
        "prompt": "a fox",
        "width": 384,
        "height": 256,
        "num_inference_steps": 9,
        "guidance_scale": 2.5,
        "true_cfg_scale": 2.0,
        "negative_prompt": "ugly",
        "max_area": 384 * 256,
    }


@pytest.mark.parametrize(
    ("pipeline", "references"),
    [("FluxKontextPipeline", 1), ("Flux2KleinPipeline", 4), ("QwenImageEditPlusPipeline", 3)],
)
def test_models_that_edit_say_how_many_pictures_they_take(
    box: Path, catalog: ModelCatalog, pipeline: str, references: int
) -> None:
    transformer_folder(box, pipeline, vae=QWEN_VAE)

    info = catalog.find("model").info

    assert Task.EDIT in info.tasks
    assert info.limits.max_references == references


def test_notes_may_allow_more_pictures(box: Path, catalog: ModelCatalog) -> None:
    path = transformer_folder(box, "Flux2KleinPipeline")
    (path / "darkroom.json").write_text('{"limits": {"max_references": 10}}')

    assert catalog.find("model").info.limits.max_references == 10
