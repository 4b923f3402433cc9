"""A1111's words for samplers, and the lines in which tools say how a picture was made."""

import pytest

from darkroom.catalog import schedulers
from darkroom.catalog.models import ModelCatalog
from darkroom.compat.a1111 import samplers
from darkroom.config import Settings
from darkroom.images.metadata import parse_parameters
from darkroom.responses import ModelInfo


@pytest.fixture(scope="module")
def model() -> ModelInfo:
    return ModelCatalog(Settings().models_dir, "tintype").find(None).info


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours"),
    [
        (None, None, "euler"),
        ("Euler a", None, "euler_a"),
        ("k_euler_a", "Automatic", "euler_a"),
        ("euler A", "automatic", "euler_a"),
        ("DPM++ 2M", None, "dpmpp_2m_karras"),
        ("DPM++ 2M", "uniform", "dpmpp_2m"),
        ("DPM++ 2M", "normal", "dpmpp_2m"),
        ("DPM++ 2M", "Exponential", "dpmpp_2m_exponential"),
        ("DPM++ 2M", "SGM Uniform", "dpmpp_2m_sgm_uniform"),
        ("DPM++ 2M Karras", None, "dpmpp_2m_karras"),
        ("DPM++ 2M SDE Karras", "Automatic", "dpmpp_2m_sde_karras"),
        ("DPM++ 2M SDE", None, "dpmpp_2m_sde_exponential"),
        ("DPM++ 3M SDE Exponential", None, "dpmpp_3m_sde_exponential"),
        ("dpmpp_2m_karras", None, "dpmpp_2m_karras"),
        ("DPM2 a Karras", None, "dpm2_a_karras"),
        ("Heun", "beta", "heun_beta"),
        ("LMS Karras", "karras", "lms_karras"),
        ("PLMS", None, "pndm"),
        ("UniPC", "polyexponential", "unipc_exponential"),
        ("DDIM", None, "ddim"),
        ("LCM", None, "lcm"),
    ],
)
def test_samplers_by_their_names(
    model: ModelInfo, sampler: str | None, schedule: str | None, ours: str
) -> None:
    assert samplers.choose(sampler, schedule, model) == samplers.Choice(ours, ())


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours", "ignored"),
    [
        ("Euler a", "karras", "euler_a", "scheduler"),
        ("Euler", "kl_optimal", "euler_karras", "scheduler"),
        ("Euler", "Align Your Steps", "euler_karras", "scheduler"),
        ("Euler", "ddim_uniform", "euler", "scheduler"),
        ("Euler", "turbo", "euler_sgm_uniform", "scheduler"),
        ("DPM fast", None, "dpmpp_2m", "sampler_name"),
        ("DPM++ 2S a", None, "dpmpp_sde_karras", "sampler_name"),
        ("Euler a Karras", None, "euler_a", "sampler_name"),
    ],
)
def test_the_nearest_is_taken_and_said(
    model: ModelInfo, sampler: str, schedule: str | None, ours: str, ignored: str
) -> None:
    assert samplers.choose(sampler, schedule, model) == samplers.Choice(ours, (ignored,))


def test_every_listed_combination_is_a_scheduler_of_ours(model: ModelInfo) -> None:
    for sampler in samplers.sampler_list():
        assert all(isinstance(value, str) for value in sampler["options"].values())
        for name in (sampler["name"], *sampler["aliases"]):
            for schedule in samplers.schedule_list():
                for word in (schedule["name"], schedule["label"]):
                    choice = samplers.choose(name, word, model)
                    schedulers.find(choice.scheduler)


def test_a_model_with_its_own_scheduler_keeps_it(model: ModelInfo) -> None:
    own = model.model_copy(update={"schedulers": ("native",)})

    assert samplers.choose("Euler a", "karras", own) == samplers.Choice("native", ("sampler_name",))
    assert samplers.label("native") == "native"


def test_a_flow_takes_the_samplers_that_it_can(model: ModelInfo) -> None:
    """At the model's own noise levels, so that a schedule that is asked for is named as ignored."""
    flow = model.model_copy(update={"schedulers": schedulers.FLOW})
    karras = samplers.Choice("dpmpp_2m", ("sampler_name",))

    assert samplers.choose("DPM++ 2M", "automatic", flow) == samplers.Choice("dpmpp_2m", ())
    assert samplers.choose("DPM++ 2M Karras", None, flow) == karras
    assert samplers.choose("Heun", "karras", flow) == samplers.Choice("heun", ("scheduler",))
    assert samplers.choose("DDIM", None, flow) == samplers.Choice("native", ("sampler_name",))
    assert samplers.choose(None, None, flow) == samplers.Choice("native", ())


def test_an_infotext_is_taken_apart() -> None:
    text = (
        "a fox, red\nsecond line\nNegative prompt: a house\nNegative too\n"
        'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Model: "a, b: c", '
        "Denoising strength: 0.5, Hires upscale: 2"
    )

    assert parse_parameters(text) == {
        "Prompt": "a fox, red\nsecond line",
        "Negative prompt": "a house\nNegative too",
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "7",
        "Seed": "1",
        "Size-1": "512",
        "Size-2": "768",
        "Model": "a, b: c",
        "Denoising strength": "0.5",
        "Hires upscale": "2",
    }


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a fox", "a fox"),
        ("a fox: red, a: b", "a fox: red, a: b"),
        ('Steps: "unfinished', 'Steps: "unfinished'),
    ],
)
def test_what_holds_no_settings_is_a_prompt(text: str, prompt: str) -> None:
    assert parse_parameters(text) == {"Prompt": prompt, "Negative prompt": ""}


def test_nothing_says_nothing() -> None:
    assert parse_parameters("") == {}


@pytest.mark.parametrize(
    "text", ["a: " * 20_000, 'a: "' + "\\" * 30_000, "a b " * 10_000, ", : " * 10_000]
)
def test_a_hostile_infotext_takes_no_time(text: str) -> None:
    parse_parameters(text)
