"""Jobs with different LoRAs share their calls, and each picture is as if its job ran alone."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from darkroom.engine import lora_layers
from darkroom.engine.base import EngineEvent, EngineJob, Failed, Finished, Stepped
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.weight_changes import At, LowRank
from darkroom.requests import Lora, Task
from tests.conftest import DATA
from tests.effort import sampled
from tests.engine import hardware, lora_files, tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.lora_files import draw
from tests.engine.stock import Stock, assert_equal, difference

MODELS = ("sd1", "sdxl")
STEPS = 4


def sets(model: str) -> tuple[tuple[Lora, ...], ...]:
    """Five: none, one, the same by another scale, one with convolutions, and two at once."""
    ink, fog, wood = (f"{model}-{name}" for name in ("ink", "fog", "wood"))
    return (
        (),
        (Lora(name=ink),),
        (Lora(name=ink, scale=-0.6),),
        (Lora(name=wood, scale=0.4),),
        (Lora(name=fog, scale=0.7), Lora(name=ink, scale=0.5)),
    )


def draw_loras(model: str, folder: Path) -> None:
    """Write the LoRAs of a model in `folder`/models into `folder`/loras."""
    (folder / "loras").mkdir(exist_ok=True)
    pipeline = DiffusionPipeline.from_pretrained(folder / "models" / model, dtype=torch.float32)
    for seed, (name, options) in enumerate(
        {
            "ink": {},
            "fog": {"rank": 2, "alpha": 2.0},
            "wood": {"layers": lora_files.EVERYTHING, "parts": ("unet",)},
        }.items()
    ):
        path = folder / "loras" / f"{model}-{name}.safetensors"
        lora_files.kohya(path, draw(pipeline, seed=seed, **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    for model in MODELS:
        tiny.BUILDERS[model](made / "models" / model)
        draw_loras(model, made)
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> DiffusersEngine:
    made = make_engine(folder)
    for model in MODELS:
        hardware.parallel(made, model)
    return made


@pytest.fixture(scope="module")
def stock(folder: Path) -> dict[str, Stock]:
    return {model: Stock(folder / "models" / model) for model in MODELS}


def job(
    model: str, name: str, loras: tuple[Lora, ...], task: Task = Task.TXT2IMG, **fields: Any
) -> EngineJob:
    side = (tiny.SIZE, tiny.SIZE)
    values = {"width": side[0], "height": side[1], "num_inference_steps": STEPS, **fields}
    asked = request(task, model=model, loras=loras, **values)
    with Image.open(DATA / "photo.jpg") as opened:
        image = opened.convert("RGB").resize(side, Image.Resampling.LANCZOS)
    mask = Image.new("L", side, 0)
    ImageDraw.Draw(mask).ellipse((16, 16, 44, 34), fill=255)
    return EngineJob(name, asked, image, mask)


@pytest.mark.parametrize("model", sampled(MODELS))
def test_each_set_makes_a_picture_of_its_own(stock: dict[str, Stock], model: str) -> None:
    """Else equality would say little."""
    pictures = [stock[model].picture(job(model, "x", loras)) for loras in sets(model)]

    for number, one in enumerate(pictures):
        assert all(difference(one, other) > 4 for other in pictures[:number])


@pytest.mark.parametrize("model", sampled(MODELS))
def test_rows_of_a_call_have_their_own_loras(
    engine: DiffusersEngine, stock: dict[str, Stock], model: str
) -> None:
    """Of all tasks, guided or not."""
    asked = []
    for number, loras in enumerate(sets(model)):
        other: dict[str, Any] = (
            {"guidance_scale": 1.0, "seed": 11},
            {"task": Task.IMG2IMG, "scheduler": "euler"},
            {"task": Task.INPAINT, "num_images": 2},
        )[number % 3]
        asked.append(job(model, f"{number} guided", loras, seed=number))
        asked.append(job(model, f"{number} other", loras, **other))

    with hardware.counting(engine, model) as rows:
        events = run(engine, *asked)

    assert max(rows) > 4
    for one in asked:
        for index, ours in enumerate(developed(events, one.id)):
            assert_equal(ours, stock[model].picture(one, index))


def test_long_and_short_prompts_of_different_loras_are_as_alone(engine: DiffusersEngine) -> None:
    """diffusers cuts long ones off."""
    model = "sd1"
    prompts = ("a fox", "a fox, " * 40, "a house, " * 60)
    asked = [
        job(model, f"job {n}", loras, prompt=prompts[n % 3]) for n, loras in enumerate(sets(model))
    ]

    together = run(engine, *asked)

    for one in asked:
        (alone,) = developed(run(engine, one), one.id)
        assert_equal(developed(together, one.id)[0], alone)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_eight_jobs_of_five_sets_share_their_calls(
    engine: DiffusersEngine, stock: dict[str, Stock], model: str
) -> None:
    """A quarter of the stock pipelines' calls, or less: those make one a step and job."""
    different = sets(model)
    asked = [job(model, f"job {n}", different[n % 5], seed=n) for n in range(8)]

    with hardware.counting(engine, model) as calls:
        events = run(engine, *asked)

    assert 4 * len(calls) <= STEPS * len(asked)
    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, stock[model].picture(one))


def test_exact_jobs_share_no_call_and_keep_their_bytes(engine: DiffusersEngine) -> None:
    different = sets("sd1")
    exact = job("sd1", "exact", different[4], exact=True)
    others = [job("sd1", f"other {n}", loras, seed=n) for n, loras in enumerate(different)]

    (alone,) = developed(run(engine, exact), "exact")
    (beside,) = developed(run(engine, *others, exact), "exact")

    assert alone.tobytes() == beside.tobytes()


@pytest.mark.slow
def test_deep_parts_are_kept_for_each_row_with_its_loras(folder: Path) -> None:
    engine = make_engine(folder, deep_cache_interval=2)
    hardware.parallel(engine, "sd1")
    asked = [job("sd1", f"job {n}", loras, seed=n) for n, loras in enumerate(sets("sd1"))]

    together = run(engine, *asked)

    for one in asked:
        (alone,) = developed(run(engine, one), one.id)
        assert_equal(developed(together, one.id)[0], alone)


def test_calls_that_are_cut_keep_each_row_s_loras(folder: Path, stock: dict[str, Stock]) -> None:
    """As where memory is short."""
    asked = [job("sd1", f"job {n}", loras, seed=n) for n, loras in enumerate(sets("sd1"))]
    short = make_engine(folder)
    hardware.parallel(short, "sd1")

    with hardware.unet_memory(short, 3, "sd1"):
        events = run(short, *asked)

    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, stock["sd1"].picture(one))


# --- files that change, and memory ---------------------------------------------------------


@pytest.mark.slow
def test_a_job_keeps_the_lora_that_it_began_with(tmp_path: Path) -> None:
    """Its file is replaced under it; jobs after it have the new one, and share its calls."""
    tiny.sd1(tmp_path / "models" / "sd1")
    draw_loras("sd1", tmp_path)
    style = tmp_path / "loras" / "style.safetensors"
    first = (tmp_path / "loras" / "sd1-ink.safetensors").read_bytes()
    other = (tmp_path / "loras" / "sd1-fog.safetensors").read_bytes()
    style.write_bytes(first)
    engine = make_engine(tmp_path)
    hardware.parallel(engine, "sd1")
    asked = [job("sd1", name, (Lora(name="style"),)) for name in ("before", "after")]

    engine.submit(asked[0])
    events: list[EngineEvent] = []
    while not any(isinstance(event, Stepped) for event in events):
        events += engine.tick()
    style.write_bytes(other)
    os.utime(style, ns=(1, 1))
    with hardware.counting(engine, "sd1") as rows:
        events += run(engine, asked[1])

    assert max(rows) == 4
    for one, lora in zip(asked, ("sd1-ink", "sd1-fog"), strict=True):
        alone = job("sd1", "alone", (Lora(name=lora),))
        (expected,) = developed(run(engine, alone), "alone")
        (ours,) = developed(events, one.id)
        assert_equal(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("tenths", "together"), [(25, 2), (5, 1)])
def test_loras_of_jobs_in_flight_take_no_more_memory_than_they_may(
    tmp_path: Path, tenths: int, together: int
) -> None:
    """Jobs wait for the memory of others; those without LoRAs do not.

    There is memory for so many tenths of a LoRA. One alone may take more than there is.
    """
    tiny.sd1(tmp_path / "models" / "sd1")
    draw_loras("sd1", tmp_path)
    drawn = (tmp_path / "loras" / "sd1-ink.safetensors").read_bytes()
    for number in range(6):
        (tmp_path / "loras" / f"{number}.safetensors").write_bytes(drawn)
    engine = make_engine(tmp_path)
    hardware.parallel(engine, "sd1")
    held = hardware.model(engine, "sd1").family._adapters
    held.find((Lora(name="0"),))
    size = held.bytes
    held._budget_bytes = tenths * size // 10
    asked = [job("sd1", f"{n}", (Lora(name=f"{n % 6}"),), seed=n) for n in range(9)]
    plain = job("sd1", "plain", ())

    for one in (*asked, plain):
        engine.submit(one)
    ended, largest = [], 0
    while engine.in_flight():
        ended += [event.job_id for event in engine.tick() if isinstance(event, Finished)]
        largest = max(largest, held.bytes)

    assert {*ended} == {one.id for one in (*asked, plain)}
    assert ended.index("plain") < 5
    assert largest == together * size
    assert len(held.loaded) == together


# --- one that cannot be used, in company ---------------------------------------------------


def _not_finite(path: Path, _folder: Path) -> None:
    tensors = load_file(path)
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))][0, 0] = torch.nan
    save_file(tensors, path)


def _of_other_widths(path: Path, folder: Path) -> None:
    path.write_bytes((folder / "loras" / "sdxl-ink.safetensors").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "reason"),
    sampled([(_not_finite, "infinite"), (_of_other_widths, "for another model")]),
)
def test_a_lora_that_cannot_be_used_harms_nobody_else(
    folder: Path,
    engine: DiffusersEngine,
    stock: dict[str, Stock],
    spoil: Callable[[Path, Path], None],
    reason: str,
) -> None:
    bad = folder / "loras" / "bad.safetensors"
    bad.write_bytes((folder / "loras" / "sd1-ink.safetensors").read_bytes())
    spoil(bad, folder)
    asked = [job("sd1", f"job {n}", sets("sd1")[n % 5], seed=n) for n in range(8)]
    failing = [job("sd1", f"bad {n}", (Lora(name="bad"),)) for n in range(2)]

    with hardware.counting(engine, "sd1") as calls:
        events = run(engine, *asked[:4], *failing, *asked[4:])

    failed = {event.job_id: event for event in events if isinstance(event, Failed)}
    assert failed.keys() == {one.id for one in failing}
    for event in failed.values():
        assert event.kind == "model"
        assert "'bad'" in event.detail
        assert reason in event.detail
    assert 4 * len(calls) <= STEPS * len(asked)
    others = [event for event in events if event.job_id not in failed]
    for one in asked:
        (ours,) = developed(others, one.id)
        assert_equal(ours, stock["sd1"].picture(one))


# --- layers --------------------------------------------------------------------------------


def test_rows_that_a_network_repeats_keep_their_loras() -> None:
    """As Qwen-Image-Edit's timesteps: once for the picture, and once more for its references."""
    generator = torch.Generator().manual_seed(1)
    layer = torch.nn.Linear(6, 5)
    draw = functools.partial(torch.randn, generator=generator)
    updates = {name: LowRank(draw(2, 6), draw(5, 2)) for name in ("ink", "fog")}
    rows = [{"ink": 1.0}, {}, {"fog": 0.5, "ink": -2.0}]
    inputs = torch.randn(2 * len(rows), 6, generator=generator)
    base = layer(inputs)

    output = base.clone()
    for name, share in lora_layers.shares(rows).items():
        share.add(updates[name], At(layer, inputs), output)

    for index, row in enumerate([*rows, *rows]):
        change = sum(
            scale * updates[name].up @ updates[name].down @ inputs[index]
            for name, scale in row.items()
        )
        torch.testing.assert_close(output[index], base[index] + change)


def test_rows_that_cannot_be_told_apart_are_no_guess() -> None:
    layer = torch.nn.Linear(6, 5)
    update = LowRank(torch.zeros(2, 6), torch.zeros(5, 2))
    (share,) = lora_layers.shares([{"ink": 1.0}, {}]).values()

    with pytest.raises(ValueError, match="3 inputs"):
        share.add(update, At(layer, torch.zeros(3, 6)), torch.zeros(3, 5))
