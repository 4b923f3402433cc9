"""What img2img and inpaint begin from, when it is not their source's latents as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from darkroom.catalog.listing import EMBEDDED
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import LatentResize, MaskedContent, Task
from tests.effort import sampled
from tests.engine.conftest import developed, request, run
from tests.engine.stock import Stock, assert_equal

SMALL, LARGE = (96, 64), (192, 128)


@pytest.fixture(scope="module")
def small(photo: Path) -> Image.Image:
    with Image.open(photo) as opened:
        return opened.convert("RGB").resize(SMALL)


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock(EMBEDDED / "tintype")


def resizing(source: Image.Image, **fields: Any) -> EngineJob:
    width, height = LARGE
    asked = request(Task.IMG2IMG, width=width, height=height, strength=0.6, **fields)
    return EngineJob("job", asked, source)


@pytest.mark.parametrize("how", sampled(((how,) for how in LatentResize), one_in=3))
def test_resized_latents_equal_those_that_are_handed_to_the_stock_pipeline(
    engine: DiffusersEngine, stock: Stock, small: Image.Image, how: LatentResize
) -> None:
    asked = resizing(small, latent_resize=how)
    pipeline = stock.pipeline(Task.IMG2IMG, asked.request.scheduler)
    generator = torch.Generator("cpu").manual_seed(asked.request.seed)
    with torch.inference_mode():
        encoded = pipeline.vae.encode(pipeline.image_processor.preprocess(small)).latent_dist
        drawn = encoded.sample(generator) * pipeline.vae.config.scaling_factor
    mode = how.value.removesuffix("-antialiased")
    larger = torch.nn.functional.interpolate(
        drawn, scale_factor=2, mode=mode, antialias=how.value != mode
    )

    (ours,) = developed(run(engine, asked))
    theirs = pipeline(
        asked.request.prompt,
        negative_prompt=asked.request.negative_prompt,
        image=larger,
        strength=0.6,
        num_inference_steps=asked.request.num_inference_steps,
        guidance_scale=asked.request.guidance_scale,
        generator=generator,
    ).images[0]

    assert ours.size == LARGE
    assert_equal(ours, theirs)


def test_resized_latents_are_another_start_than_resized_pixels(
    engine: DiffusersEngine, small: Image.Image
) -> None:
    by_pixels, by_latents = (
        developed(run(engine, resizing(small, latent_resize=how)))[0]
        for how in (None, LatentResize.BILINEAR)
    )

    assert by_pixels.tobytes() != by_latents.tobytes()


def test_a_source_of_odd_size_is_encoded_too(engine: DiffusersEngine, small: Image.Image) -> None:
    odd = small.crop((0, 0, 77, 53))

    (picture,) = developed(run(engine, resizing(odd, latent_resize=LatentResize.NEAREST)))

    assert picture.size == LARGE


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rectangle((32, 32, 95, 95), fill=255)
    return mask


def repaint(
    engine: DiffusersEngine, source: Image.Image, mask: Image.Image, **fields: Any
) -> np.ndarray[Any, Any]:
    asked = request(Task.INPAINT, **{"strength": 0.5, "keep_unmasked": True, **fields})
    (picture,) = developed(run(engine, EngineJob("job", asked, source, mask)))
    return np.asarray(picture, dtype=np.int16)


def test_masked_content_changes_what_is_marked_and_nothing_else(
    engine: DiffusersEngine, source: Image.Image, mask: Image.Image
) -> None:
    made = {
        content: repaint(engine, source, mask, masked_content=content) for content in MaskedContent
    }

    assert (repaint(engine, source, mask) == made[MaskedContent.ORIGINAL]).all()
    assert len({pixels.tobytes() for pixels in made.values()}) == len(MaskedContent)
    outside = np.asarray(mask) == 0
    for pixels in made.values():
        assert (pixels[outside] == np.asarray(source)[outside]).all()


def test_what_was_there_leaves_no_trace_in_other_content(
    engine: DiffusersEngine, mask: Image.Image
) -> None:
    """Two pictures that differ under the mask only, far from its edge, come to the same."""
    red, blue = (Image.new("RGB", (128, 128), (128, 128, 128)) for _ in range(2))
    red.paste((255, 0, 0), (60, 60, 68, 68))
    blue.paste((0, 0, 255), (60, 60, 68, 68))

    for content, trace in (
        (MaskedContent.ORIGINAL, True),
        (MaskedContent.NOISE, False),
        (MaskedContent.NOTHING, False),
    ):
        fields = {"masked_content": content, "strength": 0.2, "guidance_scale": 1.0}
        one, other = (repaint(engine, picture, mask, **fields) for picture in (red, blue))
        middle = np.abs(one - other)[56:72, 56:72].mean()
        assert (middle > 5) == trace, (content, middle)


def test_the_noise_is_the_seeds(
    engine: DiffusersEngine, source: Image.Image, mask: Image.Image
) -> None:
    noise = {"masked_content": MaskedContent.NOISE}
    first, again, other = (
        repaint(engine, source, mask, **noise, seed=seed).tobytes() for seed in (7, 7, 8)
    )

    assert first == again
    assert first != other


def test_at_full_strength_nothing_is_left_of_any_content(
    engine: DiffusersEngine, source: Image.Image, mask: Image.Image
) -> None:
    made = {
        repaint(engine, source, mask, masked_content=content, strength=1.0).tobytes()
        for content in MaskedContent
    }

    assert len(made) == 1
