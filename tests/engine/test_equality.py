"""The engine's pictures equal the stock diffusers pipelines' for the same seed, within 1/255."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from darkroom.catalog import schedulers as table
from darkroom.catalog.models import ModelCatalog
from darkroom.engine import schedulers
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.schemas import ResolvedRequest, Task
from tests.engine.conftest import developed, generator, request, run

PIPELINES = {
    Task.TXT2IMG: StableDiffusionPipeline,
    Task.IMG2IMG: StableDiffusionImg2ImgPipeline,
    Task.INPAINT: StableDiffusionInpaintPipeline,
}


@pytest.fixture(scope="module")
def components(catalog: ModelCatalog) -> dict[str, Any]:
    pipeline = StableDiffusionPipeline.from_pretrained(
        catalog.find("tintype").path,
        dtype=torch.float32,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    encoder = pipeline.text_encoder
    object.__setattr__(encoder, "text_model", encoder)  # as in engine/families/sd.py
    return {**pipeline.components, "requires_safety_checker": False}


def stock(
    components: dict[str, Any],
    asked: ResolvedRequest,
    index: int = 0,
    image: Image.Image | None = None,
    mask: Image.Image | None = None,
) -> Image.Image:
    """The same picture by diffusers' own pipeline, called as its documentation says."""
    config = components["scheduler"].config
    scheduler = schedulers.build(asked.scheduler, config)
    pipeline = PIPELINES[asked.task](**{**components, "scheduler": scheduler})
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {}
    if asked.task is Task.IMG2IMG:
        options = {"image": image, "strength": asked.strength}
    if asked.task is Task.INPAINT:
        size = {"width": asked.width, "height": asked.height}
        options = {"image": image, "mask_image": mask, "strength": asked.strength, **size}
        options["padding_mask_crop"] = asked.padding_mask_crop
    if asked.task is Task.TXT2IMG:
        options = {"width": asked.width, "height": asked.height}
    picture: Image.Image = pipeline(
        asked.prompt,
        negative_prompt=asked.negative_prompt,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        clip_skip=asked.clip_skip or None,
        generator=generator(asked.seed_of(index)),
        **options,
    ).images[0]
    return picture


def assert_equal(ours: Image.Image, theirs: Image.Image) -> None:
    difference = np.asarray(ours, dtype=np.int16) - np.asarray(theirs, dtype=np.int16)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("scheduler", list(table.SCHEDULERS))
def test_every_scheduler_for_every_task(
    engine: DiffusersEngine,
    components: dict[str, Any],
    source: Image.Image,
    source_mask: Image.Image,
    scheduler: str,
    task: Task,
) -> None:
    asked = request(task, scheduler=scheduler)
    image = None if task is Task.TXT2IMG else source
    mask = source_mask if task is Task.INPAINT else None

    (ours,) = developed(run(engine, EngineJob("job", asked, image, mask)))

    assert_equal(ours, stock(components, asked, 0, image, mask))


@pytest.mark.parametrize("scheduler", ["dpmpp_2m_beta", "unipc_beta"])
def test_repeated_timesteps_do_not_end_a_job(engine: DiffusersEngine, scheduler: str) -> None:
    asked = request(scheduler=scheduler)  # the stock pipeline raises an IndexError

    assert len(developed(run(engine, EngineJob("job", asked)))) == 1


@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [
        ("euler", "beta"),
        *itertools.product(
            ["euler", "dpmpp_2m", "unipc"], ["karras", "exponential", "sgm_uniform"]
        ),
    ],
)
def test_every_spacing(
    engine: DiffusersEngine, components: dict[str, Any], scheduler: str, spacing: str
) -> None:
    asked = request(scheduler=f"{scheduler}_{spacing}")

    (ours,) = developed(run(engine, EngineJob("job", asked)))

    assert_equal(ours, stock(components, asked))


@pytest.mark.parametrize(
    "fields",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0},
        {"negative_prompt": ""},
        {"clip_skip": 1},
        {"width": 160, "height": 96},
        {"num_inference_steps": 1},
        {"prompt": ""},
        {"prompt": "fox " * 200},
        {"prompt": "một con cáo đỏ 🦊"},
    ],
    ids=str,
)
def test_every_kind_of_request(
    engine: DiffusersEngine, components: dict[str, Any], fields: dict[str, Any]
) -> None:
    asked = request(**fields)

    (ours,) = developed(run(engine, EngineJob("job", asked)))

    assert_equal(ours, stock(components, asked))


def test_images_of_one_job_share_calls_and_stay_themselves(
    engine: DiffusersEngine, components: dict[str, Any]
) -> None:
    asked = request(num_images=3, scheduler="euler_a")

    pictures = developed(run(engine, EngineJob("job", asked)))

    for index, ours in enumerate(pictures):
        assert_equal(ours, stock(components, asked, index))


def test_unlike_jobs_in_flight_together_do_not_touch_each_other(
    engine: DiffusersEngine, source: Image.Image, source_mask: Image.Image
) -> None:
    jobs = [
        EngineJob("a", request(scheduler="euler_a", num_inference_steps=5)),
        EngineJob("b", request(Task.IMG2IMG, scheduler="dpmpp_2m"), source),
        EngineJob("c", request(Task.INPAINT, scheduler="unipc"), source, source_mask),
        EngineJob("d", request(scheduler="ddim", guidance_scale=1.0, num_inference_steps=9)),
    ]
    together = run(engine, *jobs)

    for job in jobs:
        (alone,) = developed(run(engine, job), job.id)
        (in_company,) = developed(together, job.id)
        assert alone.tobytes() == in_company.tobytes()


def test_inpainting_of_the_surroundings_only(
    engine: DiffusersEngine, components: dict[str, Any], photo: Any, mask: Any
) -> None:
    asked = request(Task.INPAINT, padding_mask_crop=20, keep_unmasked=True, strength=1.0)
    image, marked = Image.open(photo).convert("RGB"), Image.open(mask).convert("L")

    (ours,) = developed(run(engine, EngineJob("job", asked, image, marked)))

    assert_equal(ours, stock(components, asked, 0, image, marked))
