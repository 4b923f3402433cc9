"""The `parameters` chunk is what other tools parse."""

from darkroom.images.metadata import parameters, parse_parameters
from darkroom.requests import Task
from tests.engine.conftest import request


def test_values_with_a_comma_are_quoted() -> None:
    assert 'Model: "one, two"' in parameters(request(model="one, two"), 0)


def test_what_was_not_used_is_not_said() -> None:
    text = parameters(request(negative_prompt=""), 0)

    assert "Negative prompt" not in text
    assert "Denoising strength" not in text
    assert "Schedule type" not in text


def test_clip_skip_is_counted_as_a1111_counts() -> None:
    assert "Clip skip: 2" in parameters(request(clip_skip=1), 0)


def test_each_image_has_its_own_seed() -> None:
    text = parameters(request(Task.IMG2IMG, seed=41), 1)

    assert "Seed: 42" in text
    assert "Denoising strength: 0.7" in text


def test_a_model_with_a_scheduler_of_its_own_names_no_sampler() -> None:
    assert "Sampler" not in parameters(request(scheduler="native"), 0)


def test_hashes_stand_where_a1111_has_them() -> None:
    hashes = "ink: 0123456789ab, oil: bbbbbbbbbbbb"
    text = parameters(request(model_hash="a" * 64, lora_hashes=hashes), 0)

    assert "Model hash: aaaaaaaaaa, Model: tintype" in text
    assert text.endswith(f'Lora hashes: "{hashes}"')
    assert parse_parameters(text)["Lora hashes"] == hashes
    assert "hash" not in parameters(request(), 0)


def test_the_plain_schedule_is_named_where_no_name_means_another() -> None:
    assert "Sampler: DPM++ 2M, Schedule type: Uniform" in parameters(
        request(scheduler="dpmpp_2m"), 0
    )
    assert "Schedule type" not in parameters(request(scheduler="euler"), 0)
