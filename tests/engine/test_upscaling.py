"""Pictures made larger by a network: tile by tile, in turns, as spandrel would in one go."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from darkroom.engine.base import EngineJob, Failed, Finished, Started, Stepped
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.families import upscaling
from darkroom.engine.families.upscaling import Upscaler
from darkroom.requests import Upscale
from tests import upscalers
from tests.engine.conftest import developed, make_engine, request, run


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    upscalers.save(folder / "upscalers", "tiny-x2", scale=2)
    return folder


@pytest.fixture(scope="module")
def engine(data_dir: Path) -> DiffusersEngine:
    return make_engine(data_dir)


@pytest.fixture(scope="module")
def picture(photo: Path) -> Image.Image:
    """A photograph that takes 3×2 tiles."""
    with Image.open(photo) as opened:
        return opened.convert("RGB").resize((340, 211))


def job(
    picture: Image.Image, name: str = "job", scale: float = 2, client: str = "", upscaler="tiny-x2"
) -> EngineJob:
    asked = Upscale(upscaler=upscaler, scale=scale, image="image:source")
    return EngineJob(name, asked, picture, client=client)


def in_one_go(path: Path, picture: Image.Image) -> np.ndarray:
    """What spandrel makes of the whole picture: (h, w, 3), 0 to 255, not rounded."""
    network = upscaling.build(load_file(path))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0).float() / 255
    with torch.inference_mode():
        made = network(pixels)
    return (made[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()


def test_a_picture_of_one_tile_is_spandrels(
    engine: DiffusersEngine, data_dir: Path, picture: Image.Image
) -> None:
    small = picture.crop((0, 0, 101, 77))

    (ours,) = developed(run(engine, job(small)))

    theirs = in_one_go(data_dir / "upscalers/tiny-x2.safetensors", small)
    assert ours.size == (202, 154)
    assert theirs.std() > 5, "a picture, not one colour"
    assert np.abs(np.array(ours) - theirs).max() <= 1


def test_tiles_leave_no_seams(
    engine: DiffusersEngine, data_dir: Path, picture: Image.Image
) -> None:
    events = run(engine, job(picture))
    (ours,) = developed(events)

    theirs = in_one_go(data_dir / "upscalers/tiny-x2.safetensors", picture)
    difference = np.abs(np.array(ours) - theirs).max(axis=2)
    assert events[0] == Started("job", 6)
    assert difference.max() <= 3, "nobody sees where tiles meet"
    assert np.percentile(difference, 90) <= 1, "elsewhere it is the same"


def test_the_same_request_makes_the_same_picture(
    engine: DiffusersEngine, picture: Image.Image
) -> None:
    (once,) = developed(run(engine, job(picture)))
    (again,) = developed(run(engine, job(picture)))

    assert once.tobytes() == again.tobytes()


def test_every_tile_is_told(engine: DiffusersEngine, picture: Image.Image) -> None:
    events = run(engine, job(picture))

    assert [e.step for e in events if isinstance(e, Stepped)] == [1, 2, 3, 4, 5, 6]
    assert events[-1] == Finished("job")


def test_it_comes_as_large_as_asked(engine: DiffusersEngine, picture: Image.Image) -> None:
    (made,) = developed(run(engine, job(picture, scale=1.5)))

    assert made.size == (510, 316)


@pytest.mark.slow
def test_others_have_their_turns_between_tiles(
    engine: DiffusersEngine, picture: Image.Image
) -> None:
    engine.warm_up()
    tintype = EngineJob("tintype", request(num_inference_steps=4), client="ada")

    events = run(
        engine, job(picture, "large", client="bob"), job(picture, "other", client="eve"), tintype
    )

    order = [event.job_id for event in events if isinstance(event, Stepped)]
    last = len(order) - 1 - order[::-1].index("large")
    assert order.index("tintype") < last
    assert order.index("other") < last, "two of one upscaler take turns too"
    assert sum(isinstance(event, Finished) for event in events) == 3


def test_a_cancelled_one_stops_at_the_next_tile(
    engine: DiffusersEngine, picture: Image.Image
) -> None:
    engine.submit(job(picture))
    while not any(isinstance(event, Stepped) for event in engine.tick()):
        pass

    engine.cancel("job")

    assert engine.tick() == []
    assert engine.in_flight() == 0


class Cramped:
    """A network on a machine where only so many pixels fit."""

    def __init__(self, network: Any, pixels: int) -> None:
        self._network = network
        self._pixels = pixels
        self.scale, self.model = network.scale, network.model

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[-1] * image.shape[-2] > self._pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._network(image)


@pytest.mark.slow
@pytest.mark.parametrize(("pixels", "fits"), [(70 * 70, True), (20 * 20, False)])
def test_what_does_not_fit_goes_through_in_parts(
    data_dir: Path, picture: Image.Image, pixels: int, fits: bool
) -> None:
    path = data_dir / "upscalers/tiny-x2.safetensors"
    cramped = Cramped(upscaling.build(load_file(path)), pixels)
    upscaler = Upscaler(cramped, torch.device("cpu"), torch.float32)
    tile = picture.crop((0, 0, 128, 128))

    if fits:
        with torch.inference_mode():
            made = upscaler.enlarge(tile)
        assert np.abs(np.array(made) - in_one_go(path, tile)).max() <= 3
    else:
        with pytest.raises(torch.OutOfMemoryError):
            upscaler.enlarge(tile)


@pytest.mark.slow
def test_weights_that_do_not_fit_together_fail_the_job_alone(
    engine: DiffusersEngine, data_dir: Path, picture: Image.Image
) -> None:
    weights = upscalers.esrgan(2)
    weights["model.1.sub.0.RDB1.conv1.0.weight"] = torch.zeros(3, 3)
    save_file(weights, data_dir / "upscalers/damaged.safetensors")

    events = run(engine, job(picture, upscaler="damaged"), job(picture, "whole"))

    broken = [event for event in events if isinstance(event, Failed)]
    assert [(event.job_id, event.kind) for event in broken] == [("job", "model")]
    assert broken[0].detail == (
        "upscaler damaged.safetensors cannot be loaded: its tensors do not fit together"
    )
    assert Finished("whole") in events


def test_one_that_went_away_fails_with_its_name(
    engine: DiffusersEngine, picture: Image.Image
) -> None:
    (event,) = run(engine, job(picture, upscaler="gone"))

    assert isinstance(event, Failed)
    assert "'gone'" in event.detail
