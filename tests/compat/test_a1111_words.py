"""A1111's words for samplers, and the lines in which tools say how a picture was made."""

import json

import pytest

from darkroom.catalog import schedulers
from darkroom.catalog.models import ModelCatalog
from darkroom.compat.a1111 import png_info, samplers
from darkroom.config import Settings
from darkroom.images.metadata import parameters, parse_parameters
from darkroom.responses import ModelInfo
from tests.engine.conftest import request


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
        ("k_dpmpp_2m_ka", None, "dpmpp_2m_karras"),
        ("k_dpmpp_2m_sde_exp", None, "dpmpp_2m_sde_exponential"),
        ("k_dpm_2_a_ka", None, "dpm2_a_karras"),
        ("DPM++ 2M SGMUniform", None, "dpmpp_2m_sgm_uniform"),
        ("DPM++ 2M Automatic", None, "dpmpp_2m_karras"),
        ("DPM++ 2M Uniform", None, "dpmpp_2m"),
        ("Euler Normal", None, "euler"),
        ("dpm++2m", None, "dpmpp_2m_karras"),
        ("euler_ancestral", None, "euler_a"),
        ("dpmpp_2m", "karras", "dpmpp_2m_karras"),
        ("uni_pc", None, "unipc"),
        ("DPM++ 2M", "None", "dpmpp_2m_karras"),
        ("DPM++ 2M", "default", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Use same scheduler", "dpmpp_2m_karras"),
        ("DPM++ 2M", "sgm_uniform", "dpmpp_2m_sgm_uniform"),
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
        ("k_dpmpp_2s_a_ka", None, "dpmpp_sde_karras", "sampler_name"),
        ("Euler Simple", None, "euler", "sampler_name"),
        ("DPM++ 2M KL Optimal", None, "dpmpp_2m_karras", "sampler_name"),
        ("DPM++ 2M", "bong_tangent", "dpmpp_2m_karras", "scheduler"),
        ("DPM++ 2M", "Align Your Steps 32", "dpmpp_2m_karras", "scheduler"),
        ("DPM++ 2M Karras", "linear_quadratic", "dpmpp_2m_karras", "scheduler"),
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


@pytest.mark.parametrize("scheduler", schedulers.full_names())
def test_what_a_picture_says_names_its_scheduler(model: ModelInfo, scheduler: str) -> None:
    said = parse_parameters(parameters(request(scheduler=scheduler), 0))

    choice = samplers.choose(said["Sampler"], said.get("Schedule type"), model)

    assert choice == samplers.Choice(scheduler, ())


def test_automatic_means_what_it_means_in_a1111() -> None:
    for sampler in samplers.SAMPLERS:
        if sampler.same:
            assert schedulers.SCHEDULERS[sampler.ours].automatic == sampler.automatic


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


SETTINGS = "Steps: 24, Sampler: Euler a, CFG scale: 6, Seed: 11, Size: 640x512"
READ = {
    "Prompt": "an owl",
    "Negative prompt": "smudged",
    "Steps": "24",
    "Sampler": "Euler a",
    "CFG scale": "6",
    "Seed": "11",
    "Size-1": "640",
    "Size-2": "512",
}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (f"an owl\nNegative prompt: smudged\n{SETTINGS}", {}),
        (f"an owl\r\nNegative prompt: smudged\r\n{SETTINGS}\r\n", {}),
        (
            f"an owl\nNegative prompt: smudged\n{SETTINGS}\n"
            "Template: an {owl|fox},\nbark: rough, moon: full, mist: thin\n\n"
            "Negative Template: smudged",
            {
                "Template": "an {owl|fox},\nbark: rough, moon: full, mist: thin",
                "Negative Template": "smudged",
            },
        ),
        (
            f"an owl\nNegative prompt: smudged\n{SETTINGS}\nTemplate:an owl",
            {"Template": "an owl"},
        ),
        (f"an owl\nNegative prompt: smudged\n{SETTINGS}\nUsed embeddings: x [0011]", {}),
        (
            "an owl\nNegative prompt: smudged\n" + SETTINGS.replace(", Seed", ",\nSeed"),
            {},
        ),
        (
            f"an owl\nNegative prompt: smudged\n{SETTINGS}, Tiles: [1, 2], Version: v1",
            {"Tiles": "[1, 2]", "Version": "v1"},
        ),
        (
            f'an owl\nNegative prompt: smudged\n{SETTINGS}, Hashes: {{"vae": "00", "lora:a": "1"}}',
            {"Hashes": '{"vae": "00", "lora:a": "1"}'},
        ),
        (
            f'an owl\nNegative prompt: smudged\nX: [{{"name":"B, Seed: 9, Steps: 3"}}], {SETTINGS}',
            {"X": None},
        ),
        (
            f"an owl\nNegative prompt: smudged\n{SETTINGS}, Odd: {{x, Version: v1",
            {"Odd": "{x", "Version": "v1"},
        ),
    ],
    ids=[
        *("plain", "Windows", "templates", "one template", "more lines", "two lines", "list"),
        *("object", "before the steps", "never closed"),
    ],
)
def test_infotexts_of_all_forms_are_read(text: str, more: dict[str, str | None]) -> None:
    if more == {"X": None}:  # a line that begins with something else is the last line
        assert parse_parameters(text)["Seed"] == "11"
    else:
        assert parse_parameters(text) == READ | more


def test_a_prompt_that_looks_like_settings_stays_one() -> None:
    prompt = "Steps: of stone, an owl: grey, night: cold"

    assert parse_parameters(f"{prompt}\nNegative prompt: smudged\n{SETTINGS}") == READ | {
        "Prompt": prompt
    }


# --- other programs ------------------------------------------------------------------------

COMFYUI = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 2**60,
            "steps": 20,
            "cfg": 6.5,
            "denoise": 1.0,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "model": ["10", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\m.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "smudged", "clip": ["10", 1]}},
    "8": {"class_type": "PrimitiveString", "inputs": {"value": "an owl"}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "ink.safetensors", "strength_model": 0.8, "model": ["4", 0]},
    },
}
COMFYUI_FLUX = {
    "1": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["2", 0],
            "guider": ["3", 0],
            "sampler": ["4", 0],
            "sigmas": ["5", 0],
            "latent_image": ["6", 0],
        },
    },
    "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
    "3": {"class_type": "BasicGuider", "inputs": {"model": ["7", 0], "conditioning": ["8", 0]}},
    "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "5": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 4}},
    "6": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 512, "height": 512}},
    "7": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux.safetensors"}},
    "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "an owl"}},
}
FOOOCUS = {
    "prompt": "an owl, (moon:1.1)",
    "negative_prompt": "smudged",
    "steps": 30,
    "seed": "7",
    "sampler": "dpmpp_2m_sde",
    "scheduler": "karras",
    "resolution": "(512, 768)",
    "guidance_scale": 4.0,
    "version": "v2",
    "adm_guidance": "(1.5, 0.8, 0.3)",
}
NOVELAI = {"steps": 26, "sampler": "k_euler_ancestral", "seed": 7, "scale": 10.0, "uc": "smudged"}
INVOKEAI = {
    "positive_prompt": "an owl",
    "negative_prompt": "smudged",
    "seed": 7,
    "steps": 30,
    "cfg_scale": 7.5,
    "scheduler": "dpmpp_2m_k",
    "width": 512,
    "height": 768,
    "model": {"name": "dream", "base": "sd-1"},
    "loras": [{"model": {"name": "ink"}, "weight": 0.5}],
}
INVOKEAI_2 = {
    "model_weights": "sd",
    "image": {
        "prompt": [{"prompt": "an owl", "weight": 1.0}],
        "steps": 9,
        "seed": 7,
        "sampler": "k_lms",
        "cfg_scale": 7.5,
        "width": 512,
        "height": 768,
    },
}


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (
            {"prompt": json.dumps(COMFYUI), "workflow": "{}"},
            {
                "Prompt": "an owl <lora:ink:0.8>",
                "Negative prompt": "smudged",
                "Steps": "20",
                "Sampler": "DPM++ 2M",
                "Schedule type": "Karras",
                "CFG scale": "6.5",
                "Seed": str(2**60),
                "Model": "m",
                "Size-1": "512",
                "Size-2": "768",
            },
        ),
        (
            {"Model": "prompt:" + json.dumps(COMFYUI_FLUX), "Make": "workflow:{}"},
            {
                "Prompt": "an owl",
                "Negative prompt": "",
                "Steps": "4",
                "Sampler": "Euler",
                "Schedule type": "Simple",
                "Seed": "5",
                "Model": "flux",
                "Size-1": "512",
                "Size-2": "512",
            },
        ),
        (
            {"parameters": json.dumps(FOOOCUS, indent=2)},
            {
                "Prompt": "an owl, (moon:1.1)",
                "Negative prompt": "smudged",
                "Steps": "30",
                "Sampler": "DPM++ 2M SDE",
                "Schedule type": "Karras",
                "CFG scale": "4",
                "Seed": "7",
                "Version": "v2",
                "Size-1": "512",
                "Size-2": "768",
            },
        ),
        (
            {"Software": "NovelAI", "Description": "an owl", "Comment": json.dumps(NOVELAI)},
            {
                "Prompt": "an owl",
                "Negative prompt": "smudged",
                "Steps": "26",
                "Sampler": "Euler a",
                "CFG scale": "10",
                "Seed": "7",
                "Clip skip": "2",
                "ENSD": "31337",
                "Size-1": "64",
                "Size-2": "32",
            },
        ),
        (
            {"invokeai_metadata": json.dumps(INVOKEAI)},
            {
                "Prompt": "an owl <lora:ink:0.5>",
                "Negative prompt": "smudged",
                "Steps": "30",
                "Sampler": "DPM++ 2M",
                "Schedule type": "Karras",
                "CFG scale": "7.5",
                "Seed": "7",
                "Model": "dream",
                "Size-1": "512",
                "Size-2": "768",
            },
        ),
        (
            {"sd-metadata": json.dumps(INVOKEAI_2)},
            {
                "Prompt": "an owl",
                "Negative prompt": "",
                "Steps": "9",
                "Sampler": "LMS",
                "CFG scale": "7.5",
                "Seed": "7",
                "Model": "sd",
                "Size-1": "512",
                "Size-2": "768",
            },
        ),
    ],
    ids=["ComfyUI", "ComfyUI, WebP", "Fooocus", "NovelAI", "InvokeAI", "InvokeAI 2"],
)
def test_other_programs_settings_are_told_as_a1111s(
    texts: dict[str, str], settings: dict[str, str]
) -> None:
    info, parameters = png_info.describe(texts, (64, 32))

    assert parameters == settings
    assert parse_parameters(info) == settings


# Samplers in a row: each leads to the next one by three inputs, and none to a text.
WAYS = ("positive", "conditioning", "negative")
CHAIN = {
    str(number): {
        "class_type": "KSampler",
        "inputs": {"latent_image": 1} | {way: [str(number + 1), 0] for way in WAYS},
    }
    for number in range(2000)
}


@pytest.mark.parametrize(
    "texts",
    [
        {"Software": "NovelAI", "Comment": "{broken"},
        {"Software": "NovelAI", "Comment": "[]"},
        {"prompt": "{}"},
        {"prompt": '{"1": 5}'},
        {"prompt": '{"1": {"class_type": "KSampler", "inputs": {"latent_image": 1, "cfg": []}}}'},
        {"prompt": '{"1": {"class_type": "KSampler", "inputs": {"latent_image": ["1", 0]}}}'},
        {"sd-metadata": '{"image": 5}'},
        {"invokeai_metadata": '{"loras": [1]}'},
        {"prompt": "{" * 10_000},
        {"parameters": '{"prompt": "x", "steps": [30]}'},
        {"parameters": '{"prompt": "x", "guidance_scale": NaN}'},
        {"invokeai_metadata": '{"width": 1e999, "height": 8}'},
        {"prompt": json.dumps(CHAIN)},
    ],
)
def test_what_is_broken_does_no_harm(texts: dict[str, str]) -> None:
    png_info.describe(texts, (64, 64))


def test_json_that_nobody_knows_is_a_prompt_and_makes_no_settings_up() -> None:
    text = '{"a": "(x:1), (y:2), (z:3)", "b": 1}'

    assert png_info.describe({"parameters": text}, (64, 64)) == (
        text,
        {"Prompt": text, "Negative prompt": ""},
    )


def test_nothing_says_nothing() -> None:
    assert parse_parameters("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "a: " * 20000,
        'a: "' + "\\" * 30000,
        "a b " * 10000,
        ", : " * 10000,
        "a: [" * 9000,
        'a: ["a: [", ' * 3000,
        "Steps: 1\n" * 4000,
        "Steps: 1,!" + " " * 31_900 + "!",
    ],
)
def test_a_hostile_infotext_takes_no_time(text: str) -> None:
    parse_parameters(text)
