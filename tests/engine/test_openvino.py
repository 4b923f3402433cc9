"""`engine.backend: openvino`: the pictures are torch's, and no job waits for a conversion."""

import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from structlog.testing import capture_logs

from darkroom.catalog.listing import EMBEDDED
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.openvino import conversion
from darkroom.engine.openvino.network import Examples, Network, Wanted
from darkroom.requests import MODEL_TASKS, Lora, Task
from tests.effort import SOAK
from tests.engine import lora_files, tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import Stock, assert_equal
from tests.waiting import eventually

DAILY = "sd1"
# A conversion takes a minute on a slow machine, so families that differ less have their turn in
# `make soak`.
OTHERS: dict[str, tuple[Task, ...]] = {
    "sd2": MODEL_TASKS,
    "sd1_inpaint": (Task.INPAINT,),
    "sdxl": MODEL_TASKS,
} | ({"sdxl_refiner": (Task.IMG2IMG,), "lcm": MODEL_TASKS} if SOAK else {})
COMPUTES = "OpenVINO computes the model"
LEFT = "torch computes the model, not OpenVINO"
CONVERTED_S = 400.0


@pytest.fixture(autouse=True, scope="module")
def _at_normal_priority() -> Iterator[None]:
    """Others may keep both cores busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "NICENESS", 0)
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a tiny model, and a LoRA for it."""
    folder = tmp_path_factory.mktemp("data")
    tiny.BUILDERS[DAILY](folder / "models" / DAILY)
    (folder / "loras").mkdir()
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "models" / DAILY)
    lora_files.kohya(folder / "loras" / "ink.safetensors", lora_files.draw(pipeline))
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """Grows by a network of OpenVINO's at each of its calls."""
    made: list[Network] = []
    call = Network.__call__

    def counted(network: Network, **arguments: Any) -> tuple[torch.Tensor]:
        made.append(network)
        return call(network, **arguments)

    monkeypatch.setattr(Network, "__call__", counted)
    return made


@pytest.fixture(scope="module")
def job(photo: Path) -> Callable[..., EngineJob]:
    """Makes a job of a tiny model, with a photograph and a mask where it needs them."""

    def make(model: str, task: Task = Task.TXT2IMG, name: str = "job", **fields: Any) -> EngineJob:
        side = 128 if model == "tintype" else tiny.SIZE
        size = {"width": side, "height": side, **fields}
        asked = request(task, model=model, num_inference_steps=3, **size)
        shape = (asked.width, asked.height)
        with Image.open(photo) as opened:
            image = opened.convert("RGB").resize(shape, Image.Resampling.LANCZOS)
        mask = Image.new("L", shape, 0)
        ImageDraw.Draw(mask).ellipse((10, 10, 40, 40), fill=255)
        return EngineJob(name, asked, image, mask)

    return make


def draw(engine: DiffusersEngine, *jobs: EngineJob) -> list[Image.Image]:
    """The first picture of each job; they are worked on together."""
    events = run(engine, *jobs)
    return [developed(events, job.id)[0] for job in jobs]


def unets(calls: Sequence[Network]) -> list[Network]:
    """Those of them that are no part of a VAE."""
    return [network for network in calls if len(network.form.inputs) > 1]


def assert_draws_as_stock(
    engine: DiffusersEngine, folder: Path, asked: Sequence[EngineJob], calls: Sequence[Network]
) -> None:
    """OpenVINO's pictures of these jobs are stock diffusers'."""
    stock = Stock(folder)

    pictures = draw(engine, *asked)

    assert unets(calls)
    for picture, each in zip(pictures, asked, strict=True):
        assert_equal(picture, stock.picture(each))


def first_picture(engine: DiffusersEngine, asked: EngineJob, until: str = COMPUTES) -> Image.Image:
    """The picture that a model makes first, when what follows it has been done or given up."""
    with capture_logs() as said:
        (picture,) = draw(engine, asked)
        eventually(
            lambda: any(line["event"] in (COMPUTES, LEFT) for line in said),
            patience_s=CONVERTED_S,
            about=lambda: said,
        )
    ended = [line for line in said if line["event"] in (COMPUTES, LEFT)]
    assert [line["event"] for line in ended] == [until], ended
    return picture


@pytest.fixture(scope="module")
def engine(data_dir: Path, job: Callable[..., EngineJob]) -> DiffusersEngine:
    """One that has converted a tiny model."""
    made = make_engine(data_dir, backend="openvino")
    first_picture(made, job(DAILY, task=Task.INPAINT))
    return made


@pytest.fixture(scope="module")
def tintype(
    tmp_path_factory: pytest.TempPathFactory, job: Callable[..., EngineJob]
) -> DiffusersEngine:
    """One that has converted the embedded model."""
    made = make_engine(tmp_path_factory.mktemp("tintype"), backend="openvino")
    first_picture(made, job("tintype"))
    return made


# --- the same pictures ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", MODEL_TASKS)
def test_it_draws_what_stock_diffusers_draws(
    engine: DiffusersEngine,
    data_dir: Path,
    job: Callable[..., EngineJob],
    calls: list[Network],
    task: Task,
) -> None:
    stock = Stock(data_dir / "models" / DAILY)
    asked = [
        job(DAILY, task, "guided"),
        job(DAILY, task, "alone", guidance_scale=1.0),
        job(DAILY, task, "two", num_images=2),
    ]
    wide = job(DAILY, task, "wide", width=tiny.SIZE + 32)

    pictures = draw(engine, *asked)
    assert unets(calls)
    pictures += draw(engine, wide)

    for picture, each in zip(pictures, [*asked, wide], strict=True):
        assert_equal(picture, stock.picture(each))


@pytest.mark.slow
def test_a_prompt_of_two_windows(
    engine: DiffusersEngine, data_dir: Path, job: Callable[..., EngineJob], calls: list[Network]
) -> None:
    """Stock diffusers cuts it."""
    long = job(DAILY, prompt="a red fox in the snow " * 20, guidance_scale=1.0)
    (by_torch,) = draw(make_engine(data_dir), long)

    (picture,) = draw(engine, long)

    assert unets(calls)
    assert_equal(picture, by_torch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"exact": True}, {"explain": True}, {"loras": (Lora(name="ink"),)}]
)
def test_torch_computes_what_must_not_depend_on_the_conversion_or_changes_layers(
    engine: DiffusersEngine,
    data_dir: Path,
    job: Callable[..., EngineJob],
    calls: list[Network],
    fields: dict[str, Any],
) -> None:
    asked = job(DAILY, **fields)
    (by_torch,) = draw(make_engine(data_dir), asked)

    (picture,) = draw(engine, asked)

    assert not unets(calls)
    assert_equal(picture, by_torch)
    if "exact" in fields:
        assert not calls
        assert picture.tobytes() == by_torch.tobytes()


@pytest.mark.slow
def test_a_picture_whose_sides_do_not_fit_is_torchs(
    tintype: DiffusersEngine,
    tmp_path: Path,
    job: Callable[..., EngineJob],
    calls: list[Network],
) -> None:
    """Of 17 latent pixels the UNet makes 9 and then 18, which it cuts; a traced one does not."""
    odd = job("tintype", width=17 * 8)
    (by_torch,) = draw(make_engine(tmp_path), odd)

    (picture,) = draw(tintype, odd)

    assert calls
    assert not unets(calls)
    assert_equal(picture, by_torch)


@pytest.mark.slow
def test_the_embedded_model(
    tintype: DiffusersEngine, job: Callable[..., EngineJob], calls: list[Network]
) -> None:
    assert_draws_as_stock(
        tintype, EMBEDDED / "tintype", [job("tintype", task, task) for task in MODEL_TASKS], calls
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHERS)
def test_every_family_of_unets(
    tmp_path: Path, job: Callable[..., EngineJob], calls: list[Network], model: str
) -> None:
    folder = tiny.BUILDERS[model](tmp_path / "models" / model)
    engine = make_engine(tmp_path, backend="openvino")
    asked = [job(model, task, task) for task in OTHERS[model]]
    first_picture(engine, asked[0])
    calls.clear()

    assert_draws_as_stock(engine, folder, asked, calls)


@pytest.mark.slow
def test_bfloat16(data_dir: Path, job: Callable[..., EngineJob], calls: list[Network]) -> None:
    """Where the CPU has it, OpenVINO computes in it; elsewhere in float32, so pictures differ."""
    by_torch = make_engine(data_dir, dtype="bfloat16")
    engine = make_engine(data_dir, dtype="bfloat16", backend="openvino")
    (expected,) = draw(by_torch, job(DAILY))
    first_picture(engine, job(DAILY))
    calls.clear()

    (picture,) = draw(engine, job(DAILY))

    assert unets(calls)
    assert np.abs(np.asarray(picture, float) - np.asarray(expected, float)).mean() < 5


def copied(data_dir: Path, engine: DiffusersEngine) -> Path:
    """Where an engine looks for its tiny model's networks; those of a data folder lie there."""
    (converted,) = (data_dir / "openvino").glob(f"{DAILY}-*")
    place = engine._models._converted.path(engine._models._find(DAILY))
    shutil.copytree(converted, place)
    return place


# --- between starts ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_the_next_start_opens_what_was_converted(
    data_dir: Path, job: Callable[..., EngineJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "COMMAND", ("false",))  # nothing can be converted any more

    first_picture(make_engine(data_dir, backend="openvino"), job(DAILY))


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_a_model_whose_file_has_changed_is_converted_anew_and_the_old_one_goes(
    data_dir: Path, tmp_path: Path, job: Callable[..., EngineJob]
) -> None:
    weights = tmp_path / "models" / DAILY / "unet" / "config.json"
    shutil.copytree(data_dir / "models", tmp_path / "models")
    place = copied(data_dir, make_engine(tmp_path, backend="openvino"))
    weights.write_text(weights.read_text() + "\n")

    first_picture(make_engine(tmp_path, backend="openvino", openvino_cache_bytes=0), job(DAILY))

    (after,) = (tmp_path / "openvino").glob(f"{DAILY}-*")
    assert after != place


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_a_damaged_file_is_deleted_and_the_picture_is_torchs(
    data_dir: Path, tmp_path: Path, job: Callable[..., EngineJob]
) -> None:
    """As a machine may leave it that lost its power."""
    (tmp_path / "models").symlink_to(data_dir / "models")
    again = make_engine(tmp_path, backend="openvino")
    place = copied(data_dir, again)
    for file in place.iterdir():
        file.write_bytes(file.read_bytes()[:1000])

    first_picture(again, job(DAILY), until=LEFT)

    assert not place.exists()


def test_a_folder_that_cannot_be_written_costs_no_picture(
    data_dir: Path, tmp_path: Path, job: Callable[..., EngineJob]
) -> None:
    (tmp_path / "models").symlink_to(data_dir / "models")
    (tmp_path / "openvino").write_text("a file")

    first_picture(make_engine(tmp_path, backend="openvino"), job(DAILY), until=LEFT)


def test_a_full_disk_costs_no_picture(
    data_dir: Path, tmp_path: Path, job: Callable[..., EngineJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(data_dir / "models")
    monkeypatch.setattr(conversion, "SPARE_BYTES", 2**60)

    first_picture(make_engine(tmp_path, backend="openvino"), job(DAILY), until=LEFT)


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_a_network_that_fails_is_left_to_torch_within_the_picture(
    data_dir: Path, job: Callable[..., EngineJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = make_engine(data_dir, backend="openvino")
    (by_torch,) = draw(make_engine(data_dir), job(DAILY))
    first_picture(again, job(DAILY))

    def fails(_network: Network, **_arguments: Any) -> tuple[torch.Tensor]:
        raise RuntimeError("[CPU] Could not allocate memory")

    with monkeypatch.context() as patch, capture_logs() as said:
        patch.setattr(Network, "__call__", fails)
        (picture,) = draw(again, job(DAILY))

    assert_equal(picture, by_torch)
    assert {line["event"] for line in said} == {LEFT}


@pytest.mark.slow
def test_the_converting_process_ends_with_its_worker(data_dir: Path, tmp_path: Path) -> None:
    entry = make_engine(data_dir)._models._find(DAILY)
    examples = Examples(None, torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 64, 64))
    process = subprocess.Popen(conversion.COMMAND, stdin=subprocess.PIPE)
    assert process.stdin is not None
    pickle.dump(Wanted(entry, examples, tmp_path, 0), process.stdin)

    process.stdin.close()

    assert process.wait(60) == 1
