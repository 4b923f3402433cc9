"""The transformer families' pictures equal the stock diffusers pipelines' for the same seed.

Within 1/255, alone and in company: for a tiny model of each, every task that it can do, guided,
unguided and with a negative prompt. The daily two are those whose calls are unlike the others':
Z-Image's transformer takes lists, and FLUX.2 klein shows its transformer the references as well.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
from PIL import Image, ImageDraw

from darkroom.catalog.families import WHOLE
from darkroom.engine.base import EngineJob
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import Lora, Task
from tests.conftest import DATA
from tests.engine import hardware, lora_files, tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import FlowStock, assert_equal, difference
from tests.engine.tiny_families import BUILDERS, FAMILIES, MODELS, SEVERAL, TRANSFORMERS

GUIDED = {"guidance_scale": 4.0, "negative_prompt": ""}
UNGUIDED = {"guidance_scale": 1.0, "negative_prompt": ""}
NEGATIVE = {"guidance_scale": 4.0, "negative_prompt": "a blue house"}
EVERY: dict[str, dict[str, Any]] = {"guided": GUIDED, "unguided": UNGUIDED, "negative": NEGATIVE}

DAILY = ("z_image", "flux2_klein")


def each(*rows: Any) -> list[Any]:
    """Parameters that are a model or begin with one; slow but for two models."""
    made = []
    for row in rows:
        values = (row,) if isinstance(row, str) else row
        made.append(pytest.param(*values, marks=() if values[0] in DAILY else pytest.mark.slow))
    return made


EACH_MODEL = each(*MODELS)
SHARING = [model for model, family in FAMILIES.items() if family != WHOLE]  # calls
EACH_TASK = each(*((model, task) for model, (tasks, _) in MODELS.items() for task in tasks))
EACH_KIND = each(
    *(
        (model, task, kind)
        for model, (tasks, kinds) in MODELS.items()
        for task in tasks
        for kind in kinds
    )
)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "models"
    for name in MODELS:
        tiny.small_by_default(BUILDERS[name](folder / name))
    return folder


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> DiffusersEngine:
    return make_engine(models_dir.parent)


@pytest.fixture(scope="module")
def stock(models_dir: Path) -> Callable[[str], FlowStock]:
    return functools.cache(lambda model: FlowStock(models_dir / model))


@pytest.fixture(autouse=True)
def _sizes(request: pytest.FixtureRequest) -> None:
    """References are small, but where a test says `full_size`."""
    if "full_size" not in request.fixturenames:
        request.getfixturevalue("small_references")


@pytest.fixture
def full_size() -> None:
    """References have the size that their pipeline wants; see `small_references`."""


def picture(turned: int = 0, size: tuple[int, int] = (tiny.SIZE, tiny.SIZE)) -> Image.Image:
    """The photograph at that size, turned by that many degrees first."""
    with Image.open(DATA / "photo.jpg") as opened:
        return opened.convert("RGB").rotate(turned).resize(size, Image.Resampling.LANCZOS)


def job(
    model: str,
    task: Task = Task.TXT2IMG,
    name: str = "job",
    *,
    turns: tuple[int, ...] = (0,),
    **fields: Any,
) -> EngineJob:
    """A small job; `turns` are the degrees by which each of an edit's references is turned."""
    values: dict[str, Any] = {
        "model": model,
        "width": tiny.SIZE,
        "height": tiny.SIZE,
        "scheduler": "native",
        "num_inference_steps": 3,
        **GUIDED,
    }
    if task is Task.EDIT:
        values["references"] = tuple(f"image:{degrees}" for degrees in turns)
    asked = request(task, **values | fields)
    size = (asked.width, asked.height)
    if task is Task.EDIT:
        # Of other sizes than the picture, and than each other.
        shown = [picture(degrees, (64 + 16 * i, 80)) for i, degrees in enumerate(turns)]
        return EngineJob(name, asked, references=tuple(shown))
    if task is Task.TXT2IMG:
        return EngineJob(name, asked)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((size[0] // 4, 16, size[0] - 20, size[1] - 12), fill=255)
    return EngineJob(name, asked, picture(size=size), mask)


@pytest.mark.parametrize(("model", "task", "kind"), EACH_KIND)
def test_alone(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str, task: Task, kind: str
) -> None:
    asked = job(model, task, **EVERY[kind])

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))


@pytest.mark.slow
@pytest.mark.usefixtures("full_size")
@pytest.mark.parametrize("model", ["flux_kontext", "qwen_image_edit", "qwen_image_edit_plus"])
def test_references_of_a_megapixel(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str
) -> None:
    asked = job(model, Task.EDIT, seed=8, num_inference_steps=2)

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))


@pytest.mark.parametrize(("model", "task"), EACH_TASK)
def test_what_is_asked_makes_a_difference(
    stock: Callable[[str], FlowStock], model: str, task: Task
) -> None:
    """Else the equality of these tiny models' pictures would say little."""
    kinds = MODELS[model][1]
    asked = [job(model, task, **EVERY[kind]) for kind in kinds]
    asked.append(job(model, task, **EVERY[kinds[0]], prompt="a blue fox"))
    asked.append(job(model, task, **EVERY[kinds[0]], num_inference_steps=4))
    if task is Task.EDIT:
        asked.append(job(model, task, **EVERY[kinds[0]], turns=(180,)))

    pictures = [stock(model).picture(each) for each in asked]

    for number, one in enumerate(pictures):
        assert all(difference(one, other) > 4 for other in pictures[:number])


@pytest.mark.parametrize("model", EACH_MODEL)
def test_in_company(engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str) -> None:
    """Jobs of every task run beside eight of other sizes, steps, guidance and prompts."""
    tasks, kinds = MODELS[model]
    asked = [job(model, task, f"{task} {kind}", **EVERY[kind]) for task in tasks for kind in kinds]
    others = [
        {"width": 96, "prompt": "a fox"},
        {"height": 96, "num_inference_steps": 5, "seed": 11},
        {"width": 80, "height": 80, "prompt": "a green apple on a very long table"},
        {"num_inference_steps": 2, "num_images": 2},
        {"num_inference_steps": 4, "prompt": ""},
        {"prompt": "một con cáo đỏ 🦊", "seed": 13},
        {"num_inference_steps": 6, "seed": 12},
        {"width": 96, "height": 96, "num_inference_steps": 1},
    ]
    guided = [
        {**EVERY[kind], "guidance_scale": EVERY[kind]["guidance_scale"] * 1.5} for kind in kinds
    ]
    company = [
        job(model, tasks[i % len(tasks)], f"other {i}", **guided[i % len(kinds)], **fields)
        for i, fields in enumerate(others)
    ]

    events = run(engine, *company[:4], *asked, *company[4:])

    for one in (*asked, *company):
        for index, ours in enumerate(developed(events, one.id)):
            assert_equal(ours, stock(model).picture(one, index))


@pytest.mark.parametrize(
    ("model", "strength"),
    each(
        *(
            (model, strength)
            for model, (tasks, _) in MODELS.items()
            if Task.IMG2IMG in tasks
            for strength in (0.3, 1.0)
        )
    ),
)
def test_strength(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str, strength: float
) -> None:
    kind = EVERY[MODELS[model][1][0]]
    again = job(model, Task.IMG2IMG, "again", strength=strength, num_inference_steps=4, **kind)
    partly = job(model, Task.INPAINT, "partly", strength=strength, num_inference_steps=4, **kind)

    events = run(engine, again, partly)

    for asked in (again, partly):
        (ours,) = developed(events, asked.id)
        assert_equal(ours, stock(model).picture(asked))


@pytest.mark.parametrize(
    "model", each(*((name,) for name, (tasks, _) in MODELS.items() if Task.INPAINT in tasks))
)
def test_unmasked_pixels_are_kept(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str
) -> None:
    asked = job(model, Task.INPAINT, keep_unmasked=True, **EVERY[MODELS[model][1][0]])

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))
    assert asked.image is not None
    assert ours.getpixel((0, 0)) == asked.image.getpixel((0, 0))


@pytest.mark.parametrize(
    ("model", "task"),
    each(
        *(
            (model, task)
            for model, (tasks, _) in MODELS.items()
            for task in (Task.IMG2IMG, Task.INPAINT)
            if task in tasks
        )
    ),
)
def test_a_picture_and_a_mask_of_other_sizes_are_brought_to_the_asked_one(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str, task: Task
) -> None:
    """Also for Qwen-Image-Edit, whose pipeline brings them to a size of its own."""
    more = {"keep_unmasked": True} if task is Task.INPAINT else {}
    sized = job(model, task, **EVERY[MODELS[model][1][0]], **more)
    assert sized.mask is not None
    large, mask = picture(size=(100, 140)), sized.mask.resize((90, 70))
    asked = replace(sized, image=large, mask=mask)
    size = (tiny.SIZE, tiny.SIZE)
    theirs = replace(
        sized,
        image=large.resize(size, Image.Resampling.LANCZOS),
        mask=mask.resize(size, Image.Resampling.BILINEAR),
    )

    (ours,) = developed(run(engine, asked))

    assert ours.size == size
    assert_equal(ours, stock(model).picture(theirs))


@pytest.mark.parametrize("model", ["sd3", "flux_dev", "qwen_image"])
@pytest.mark.slow
def test_only_the_masks_surroundings_are_repainted(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str
) -> None:
    asked = job(model, Task.INPAINT, padding_mask_crop=8, keep_unmasked=True)

    (ours,) = developed(run(engine, asked))

    assert_equal(ours, stock(model).picture(asked))


@pytest.mark.parametrize(("model", "number"), each(*SEVERAL.items()))
def test_several_references(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str, number: int
) -> None:
    """Beside an edit of one, whose calls are shorter."""
    kind = EVERY[MODELS[model][1][0]]
    asked = job(model, Task.EDIT, turns=(0, 90, 180, 270)[:number], **kind)
    beside = job(model, Task.EDIT, "beside", **kind)

    events = run(engine, beside, asked)

    for one in (asked, beside):
        (ours,) = developed(events, one.id)
        assert_equal(ours, stock(model).picture(one))


@pytest.mark.parametrize("model", EACH_MODEL)
def test_images_of_one_job_have_their_own_seeds(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str
) -> None:
    tasks, kinds = MODELS[model]
    asked = job(model, tasks[-1], num_images=3, **EVERY[kinds[0]])

    pictures = developed(run(engine, asked))

    assert len(pictures) == 3
    for index, ours in enumerate(pictures):
        assert_equal(ours, stock(model).picture(asked, index))


@pytest.mark.parametrize("model", EACH_MODEL)
def test_exact_jobs_have_the_same_bytes_whatever_else_runs(
    engine: DiffusersEngine, model: str
) -> None:
    tasks, kinds = MODELS[model]
    exact = job(model, tasks[0], "exact", exact=True, **EVERY[kinds[0]])
    others = [job(model, task, f"{task}", **EVERY[kinds[-1]], seed=9) for task in tasks]

    (alone,) = developed(run(engine, exact), "exact")
    (beside,) = developed(run(engine, *others, exact), "exact")

    assert alone.tobytes() == beside.tobytes()


# --- calls ---------------------------------------------------------------------------------


@contextmanager
def counted(model: str) -> Iterator[list[int]]:
    """The transformer's calls meanwhile, whoever makes them: one entry each."""
    cls = getattr(diffusers, TRANSFORMERS[model])
    calls: list[int] = []
    real = cls.forward

    @functools.wraps(real)
    def forward(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "forward", forward)
        yield calls


@pytest.mark.slow
@pytest.mark.parametrize("model", each(*SHARING))
def test_jobs_of_one_size_share_their_calls(
    engine: DiffusersEngine, stock: Callable[[str], FlowStock], model: str
) -> None:
    """Eight that start together take a quarter of the stock pipelines' calls, or less.

    Chroma's calls are not shared.
    """
    tasks, kinds = MODELS[model]
    fields = {**EVERY[kinds[0]], "prompt": "a fox"}
    asked = [job(model, tasks[0], f"job {seed}", seed=seed, **fields) for seed in range(20, 28)]

    with counted(model) as apart:
        for one in asked:
            stock(model).picture(one)
    hardware.parallel(engine, model)
    with counted(model) as together:
        events = run(engine, *asked)

    assert 4 * len(together) <= len(apart)
    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, stock(model).picture(one))


# --- LoRAs ---------------------------------------------------------------------------------

# Layers of the blocks, which see a row for each picture, and all layers with weights.
BLOCKS = r"(blocks|layers)\.\d+\."


def loras_of(model: str) -> tuple[tuple[Lora, ...], ...]:
    """Five sets: none, one, the same by another scale, one of every layer, and two at once."""
    ink, fog, wood = (f"{model}-{name}" for name in ("ink", "fog", "wood"))
    return (
        (),
        (Lora(name=ink),),
        (Lora(name=ink, scale=-0.6),),
        (Lora(name=wood, scale=0.4),),
        (Lora(name=fog, scale=0.7), Lora(name=ink, scale=0.5)),
    )


@pytest.fixture(scope="module")
def with_loras(models_dir: Path) -> Callable[[str], None]:
    """Draws a model's LoRAs, as diffusers saves them."""

    @functools.cache
    def make(model: str) -> None:
        folder = models_dir.parent / "loras"
        folder.mkdir(exist_ok=True)
        cls = getattr(diffusers, TRANSFORMERS[model])
        transformer = cls.from_pretrained(models_dir / model, subfolder="transformer")
        holder = SimpleNamespace(transformer=transformer)
        options: dict[str, dict[str, Any]] = {
            "ink": {"layers": BLOCKS},
            "fog": {"layers": BLOCKS, "rank": 2, "alpha": 2.0},
            "wood": {"layers": lora_files.EVERYTHING},
        }
        for seed, (name, how) in enumerate(options.items()):
            drawn = lora_files.draw(holder, seed=seed, parts=("transformer",), **how)
            lora_files.peft(folder / f"{model}-{name}.safetensors", drawn)

    return make


@pytest.mark.parametrize("model", EACH_MODEL)
def test_rows_of_a_call_have_their_own_loras(
    engine: DiffusersEngine,
    stock: Callable[[str], FlowStock],
    with_loras: Callable[[str], None],
    model: str,
) -> None:
    """Jobs of all tasks and five sets equal stock diffusers with the LoRAs loaded."""
    with_loras(model)
    tasks, kinds = MODELS[model]
    asked = [
        job(
            model,
            tasks[number % len(tasks)],
            f"{number}",
            loras=loras,
            num_inference_steps=2 + number % 2,
            seed=number,
            **EVERY[kinds[number % len(kinds)]],
        )
        for number, loras in enumerate(loras_of(model))
    ]

    events = run(engine, *asked)

    pictures = []
    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, stock(model).picture(one))
        pictures.append(ours)
    for number, one in enumerate(pictures):  # else their equality would say little
        assert all(difference(one, other) > 4 for other in pictures[:number])


@pytest.mark.slow
@pytest.mark.parametrize("model", each(*SHARING))
def test_jobs_of_five_sets_of_loras_share_their_calls(
    engine: DiffusersEngine,
    stock: Callable[[str], FlowStock],
    with_loras: Callable[[str], None],
    model: str,
) -> None:
    """Eight that start together take a quarter of the stock pipelines' calls, or less."""
    with_loras(model)
    tasks, kinds = MODELS[model]
    sets = loras_of(model)
    whole = Lora(name=f"{model}-wood", scale=0.4)
    if model.startswith("z_image"):  # its embedders see the tokens of all pictures in one row
        sets = tuple((Lora(name=f"{model}-fog"),) if whole in each else each for each in sets)
    fields = {**EVERY[kinds[0]], "prompt": "a fox"}
    asked = [
        job(model, tasks[0], f"job {n}", seed=40 + n, loras=sets[n % 5], **fields) for n in range(8)
    ]

    with counted(model) as apart:
        for one in asked:
            stock(model).picture(one)
    hardware.parallel(engine, model)
    with counted(model) as together:
        events = run(engine, *asked)

    assert 4 * len(together) <= len(apart)
    for one in asked:
        (ours,) = developed(events, one.id)
        assert_equal(ours, stock(model).picture(one))
