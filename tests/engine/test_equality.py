"""The engine's pictures equal the stock diffusers pipelines' for the same seed, within 1/255.

Alone and in company: for tintype and a tiny model of every architecture, every task that it can
do and every scheduler.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from darkroom.catalog import schedulers as table
from darkroom.catalog.listing import EMBEDDED
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import MODEL_TASKS, Task
from tests.effort import amount, sampled
from tests.engine import tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import Stock, assert_equal

EVERY = MODEL_TASKS
MODELS: dict[str, tuple[Task, ...]] = {
    "tintype": EVERY,
    "sd1": EVERY,
    "sd1_inpaint": (Task.INPAINT,),
    "sd2": EVERY,
    "sdxl": EVERY,
    "sdxl_inpaint": (Task.INPAINT,),
    "sdxl_refiner": (Task.IMG2IMG, Task.INPAINT),
    "lcm": EVERY,
    "turbo": EVERY,
}
DAILY = ("sd1", "sdxl")


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "models"
    for name in MODELS.keys() - {"tintype"}:
        tiny.BUILDERS[name](folder / name)
    return folder


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> DiffusersEngine:
    return make_engine(models_dir.parent)


@pytest.fixture(scope="module")
def stock(models_dir: Path) -> Callable[[str], Stock]:
    made: dict[str, Stock] = {}

    def of(model: str) -> Stock:
        folder = (EMBEDDED if model == "tintype" else models_dir) / model
        return made.setdefault(model, Stock(folder))

    return of


@pytest.fixture(scope="module")
def job(photo: Path) -> Callable[..., EngineJob]:
    """Makes a job at its model's size, with a photograph and a mask where it needs them."""

    def make(model: str, task: Task = Task.TXT2IMG, name: str = "job", **fields: Any) -> EngineJob:
        side = 128 if model == "tintype" else tiny.SIZE
        asked = request(task, **{"model": model, "width": side, "height": side, **fields})
        with Image.open(photo) as opened:
            image = opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).ellipse((side // 4, side // 4, side - 20, side - 30), fill=255)
        return EngineJob(name, asked, image, mask)

    return make


def is_daily(model: str, task: Task, number: int) -> bool:
    """Whether a model does a task by the scheduler of this number every day.

    Each scheduler has a turn, and each task of each model.
    """
    every = 2 * len(DAILY)
    return model in DAILY and (EVERY.index(task) + number) % every == DAILY.index(model)


@pytest.mark.parametrize(
    ("model", "task", "scheduler"),
    [
        pytest.param(
            *(model, task, scheduler),
            marks=() if is_daily(model, task, number) else pytest.mark.slow,
        )
        for model, tasks in MODELS.items()
        for task in tasks
        for number, scheduler in enumerate(table.SCHEDULERS)
    ],
)
def test_alone(
    engine: DiffusersEngine,
    stock: Callable[[str], Stock],
    job: Callable[..., EngineJob],
    model: str,
    task: Task,
    scheduler: str,
) -> None:
    asked = job(model, task, scheduler=scheduler)

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))


@pytest.mark.parametrize(
    ("model", "one_in"),
    [
        *((model, 5) for model in DAILY),
        *(
            pytest.param(model, amount(2, 2, 1) if len(tasks) > 1 else 1, marks=pytest.mark.slow)
            for model, tasks in MODELS.items()
        ),
    ],
)
def test_in_company(
    engine: DiffusersEngine,
    stock: Callable[[str], Stock],
    job: Callable[..., EngineJob],
    model: str,
    one_in: int,
) -> None:
    """Eight and more unlike jobs share their calls, and no picture is changed by that."""
    unlike = itertools.cycle(
        [
            {"guidance_scale": 1.0, "num_inference_steps": 5},
            {"negative_prompt": "", "seed": 11},
            {"guidance_scale": 7.5, "num_inference_steps": 9, "prompt": "a green apple"},
        ]
    )
    jobs = [
        job(model, task, f"{task}-{scheduler}", scheduler=scheduler, **next(unlike))
        for number, scheduler in enumerate(table.SCHEDULERS)
        for task in MODELS[model]
        if (EVERY.index(task) + number) % one_in == 0
    ]

    events = run(engine, *jobs)

    for each in jobs:
        (ours,) = developed(events, each.id)
        assert_equal(ours, stock(model).picture(each))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["dpmpp_2m_beta", "unipc_beta"])
def test_repeated_timesteps_do_not_end_a_job(
    engine: DiffusersEngine, job: Callable[..., EngineJob], scheduler: str
) -> None:
    asked = job("tintype", scheduler=scheduler)  # the stock pipeline raises an IndexError

    assert len(developed(run(engine, asked))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [
        ("euler", "beta"),
        *sampled(
            itertools.product(
                ["euler", "dpmpp_2m", "unipc"], ["karras", "exponential", "sgm_uniform"]
            ),
            one_in=4,  # each scheduler once, and each spacing
        ),
    ],
)
def test_every_spacing(
    engine: DiffusersEngine,
    stock: Callable[[str], Stock],
    job: Callable[..., EngineJob],
    scheduler: str,
    spacing: str,
) -> None:
    asked = job("tintype", scheduler=f"{scheduler}_{spacing}")

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock("tintype").picture(asked))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task"),
    [("tintype", Task.TXT2IMG), ("sd1", Task.TXT2IMG), *(("sdxl", task) for task in EVERY)],
)
def test_rescaled_guidance(
    engine: DiffusersEngine,
    stock: Callable[[str], Stock],
    job: Callable[..., EngineJob],
    model: str,
    task: Task,
) -> None:
    """Equal wherever the stock pipeline has `guidance_rescale`, beside a job that has none."""
    asked = job(model, task, guidance_scale=7.5, guidance_rescale=0.7)
    plain = job(model, task, "plain", guidance_scale=7.5)

    events = run(engine, asked, plain)

    (ours,), (unscaled,) = developed(events, "job"), developed(events, "plain")
    assert_equal(ours, stock(model).picture(asked))
    assert ours.tobytes() != unscaled.tobytes()


@pytest.mark.parametrize("task", [Task.IMG2IMG, Task.INPAINT])
def test_guidance_is_rescaled_where_the_stock_pipeline_cannot(
    engine: DiffusersEngine, job: Callable[..., EngineJob], task: Task
) -> None:
    asked = job("sd1", task, guidance_scale=7.5, guidance_rescale=1.0)
    plain = job("sd1", task, "plain", guidance_scale=7.5)

    events = run(engine, asked, plain)

    assert developed(events, "job")[0].tobytes() != developed(events, "plain")[0].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("model", sampled(["sdxl", "sd2", "tintype"]))
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
        {"prompt": "một con cáo đỏ 🦊"},
    ],
    ids=str,
)
def test_every_kind_of_request(
    engine: DiffusersEngine,
    stock: Callable[[str], Stock],
    job: Callable[..., EngineJob],
    model: str,
    fields: dict[str, Any],
) -> None:
    asked = job(model, **fields)

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))


@pytest.mark.slow
@pytest.mark.parametrize("model", sampled(["sd1_inpaint", "sdxl", "sdxl_inpaint", "sd1"], one_in=2))
def test_everything_repainted(
    engine: DiffusersEngine,
    stock: Callable[[str], Stock],
    job: Callable[..., EngineJob],
    model: str,
) -> None:
    asked = job(model, Task.INPAINT, strength=1.0, scheduler="euler_a")

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))


def test_images_of_one_job_share_calls_and_stay_themselves(
    engine: DiffusersEngine, stock: Callable[[str], Stock], job: Callable[..., EngineJob]
) -> None:
    asked = job("tintype", Task.IMG2IMG, num_images=3, scheduler="euler_a")

    pictures = developed(run(engine, asked))

    for index, ours in enumerate(pictures):
        assert_equal(ours, stock("tintype").picture(asked, index))


def test_exact_jobs_have_the_same_bytes_whatever_else_runs(
    engine: DiffusersEngine, job: Callable[..., EngineJob]
) -> None:
    exact = job("tintype", Task.IMG2IMG, "exact", exact=True, num_images=2, scheduler="euler_a")
    others = [
        job("tintype", task, f"{task}-{scheduler}", scheduler=scheduler, num_inference_steps=5)
        for scheduler in ("ddim", "dpmpp_2m_sde")
        for task in MODEL_TASKS
    ]
    twins = [EngineJob(name, exact.request, exact.image) for name in ("twin", "other twin")]

    alone = developed(run(engine, exact), "exact")
    in_company = run(engine, *others[:3], exact, *others[3:], *twins)

    for name in ("exact", "twin", "other twin"):
        pictures = developed(in_company, name)
        assert [p.tobytes() for p in pictures] == [p.tobytes() for p in alone]


def test_inpainting_of_the_surroundings_only(
    engine: DiffusersEngine, stock: Callable[[str], Stock], photo: Path, mask: Path
) -> None:
    fields = {"padding_mask_crop": 20, "keep_unmasked": True, "strength": 1.0}
    image, marked = Image.open(photo).convert("RGB"), Image.open(mask).convert("L")
    asked = EngineJob("job", request(Task.INPAINT, **fields), image, marked)

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock("tintype").picture(asked))
