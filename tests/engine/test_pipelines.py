"""Models that their own pipelines run: in steps, in turns, stoppable, by several schedulers."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from darkroom.engine.base import EngineJob, Failed, Finished, JobWarning, Started, Stepped
from darkroom.requests import LatentResize, MaskedContent, Task
from tests.effort import sampled
from tests.engine import tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import FlowStock, assert_equal
from tests.engine.tiny_families import BUILDERS

FLOWS = ("flux_dev", "z_image", "qwen_image")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny.sd3(folder / "models" / "sd3")
    return folder


def tensors(made: Any) -> Iterator[torch.Tensor]:
    """Those in what an encoder gives, however deep."""
    if isinstance(made, torch.Tensor):
        yield made
    elif isinstance(made, list | tuple):
        for each in made:
            yield from tensors(each)


def job(name: str = "job", task: Task = Task.TXT2IMG, **fields: object) -> EngineJob:
    size = {"width": tiny.SIZE, "height": tiny.SIZE}
    asked = request(task, **{"model": "sd3", "scheduler": "native", **size, **fields})
    grey = Image.new("RGB", (tiny.SIZE, tiny.SIZE), "grey")
    mask = Image.new("L", (tiny.SIZE, tiny.SIZE), 0)
    mask.paste(255, (16, 16, 48, 48))
    return EngineJob(name, asked, grey, mask)


def test_the_picture_is_its_pipelines(data_dir: Path) -> None:
    asked = job(num_inference_steps=4)
    stock = StableDiffusion3Pipeline.from_pretrained(
        data_dir / "models" / "sd3", dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    stock.set_progress_bar_config(disable=True)

    (ours,) = developed(run(make_engine(data_dir), asked))

    theirs = stock(
        asked.request.prompt,
        negative_prompt=asked.request.negative_prompt,
        width=tiny.SIZE,
        height=tiny.SIZE,
        num_inference_steps=4,
        guidance_scale=asked.request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(asked.request.seed),
    ).images[0]
    assert_equal(ours, theirs)


def test_every_step_is_told(data_dir: Path) -> None:
    events = run(make_engine(data_dir), job(num_images=2, num_inference_steps=3))

    assert events[0] == Started("job", 6)
    told = [event.step for event in events if isinstance(event, Stepped)]
    assert told == sorted(set(told))  # two pictures may take a step in one call
    assert told[-1] == 6
    assert len(developed(events)) == 2
    assert events[-1] == Finished("job")


@pytest.mark.slow
def test_others_have_their_turns_between_its_steps(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    engine.warm_up()
    tintype = EngineJob("tintype", request(num_inference_steps=4))

    events = run(engine, job("whole", num_inference_steps=4), job("second"), tintype)

    order = [event.job_id for event in events if isinstance(event, Stepped)]
    first_of_others = order.index("tintype")
    assert first_of_others < len(order) - 1 - order[::-1].index("whole")
    assert order.index("second") < len(order) - 1 - order[::-1].index("whole")
    for name in ("whole", "second", "tintype"):
        assert developed(events, name)


def test_cancelling_takes_effect_at_the_next_step(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    engine.submit(job(num_inference_steps=50))
    while not any(isinstance(event, Stepped) for event in engine.tick()):
        pass

    engine.cancel("job")

    assert engine.tick() == []
    assert developed(run(engine, job("next", num_inference_steps=2)), "next")


@pytest.mark.parametrize("task", [Task.IMG2IMG, Task.INPAINT])
def test_other_tasks(data_dir: Path, task: Task) -> None:
    (picture,) = developed(run(make_engine(data_dir), job(task=task, num_inference_steps=4)))

    assert picture.size == (tiny.SIZE, tiny.SIZE)


def test_unmasked_pixels_are_kept(data_dir: Path) -> None:
    asked = job(task=Task.INPAINT, keep_unmasked=True, num_inference_steps=2)

    (picture,) = developed(run(make_engine(data_dir), asked))

    assert picture.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"task": Task.IMG2IMG, "latent_resize": LatentResize.NEAREST}, "latents"),
        ({"task": Task.INPAINT, "masked_content": MaskedContent.NOISE}, "latents"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    data_dir: Path, fields: dict[str, Any], word: str
) -> None:
    (event,) = run(make_engine(data_dir), job(**fields))

    assert isinstance(event, Failed)
    assert event.kind == "request"
    assert word in event.detail


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flows")
    for name in FLOWS:
        tiny.small_by_default(BUILDERS[name](folder / "models" / name))
    return folder


@pytest.mark.parametrize("name", sampled(FLOWS))
def test_other_schedulers(flows: Path, name: str) -> None:
    """Each makes a picture of its own, of txt2img and img2img, at as many calls as it takes."""
    engine = make_engine(flows)
    for task in (Task.TXT2IMG, Task.IMG2IMG):
        pictures = set()
        for scheduler in ("native", "heun", "dpmpp_2m", "unipc"):
            events = run(engine, job(model=name, task=task, scheduler=scheduler))
            (picture,) = developed(events)
            pictures.add(picture.tobytes())
            steps = [event.step for event in events if isinstance(event, Stepped)]
            assert steps == sorted(steps)
        assert len(pictures) == 4
        (euler,) = developed(run(engine, job(model=name, task=task, scheduler="euler")))
        assert euler.tobytes() in pictures  # it is the model's own


@pytest.mark.parametrize("name", ["sd3", *(pytest.param(f, marks=pytest.mark.slow) for f in FLOWS)])
@pytest.mark.parametrize("task", [Task.IMG2IMG, Task.INPAINT])
def test_progress_counts_the_steps_that_are_done(
    data_dir: Path, flows: Path, name: str, task: Task
) -> None:
    """Of all images together, upwards to the number that was told first."""
    asked = job(task=task, model=name, num_images=2, num_inference_steps=8, strength=0.5)

    events = run(make_engine(data_dir if name == "sd3" else flows), asked)

    told = [event for event in events if isinstance(event, Started | Stepped)]
    assert {event.steps for event in told} == {8}
    steps = [event.step for event in told if isinstance(event, Stepped)]
    assert steps == sorted(steps)  # a step with guidance may take two calls
    assert steps[-1] == 8


@pytest.mark.slow
@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("name", ["flux_kontext", "flux2_klein", "qwen_image_edit_plus"])
def test_progress_of_an_edit_counts_all_its_steps(tmp_path: Path, name: str) -> None:
    tiny.small_by_default(BUILDERS[name](tmp_path / "models" / name))
    grey = Image.new("RGB", (tiny.SIZE, tiny.SIZE), "grey")
    asked = job(task=Task.EDIT, model=name, num_images=2, num_inference_steps=4).request

    events = run(make_engine(tmp_path), EngineJob("job", asked, references=(grey,)))

    assert events[0] == Started("job", 8)
    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert steps == sorted(steps)  # a step with guidance may take two calls
    assert steps[-1] == 8


@pytest.mark.parametrize(
    "name",
    [
        "z_image",
        "flux_dev",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("flux2_dev", "flux2_klein", "qwen_image", "sd3", "chroma", "auraflow")
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_noted_to_the_token(tmp_path: Path, name: str) -> None:
    """A letter is a token in these models, and T5 has one before each text.

    What stands around a prompt counts towards the limit. SD3 is without its T5 here.
    """
    folder = tmp_path / "models" / name
    tiny.small_by_default((BUILDERS | tiny.BUILDERS)[name](folder))
    stock = FlowStock(folder).pipeline(Task.TXT2IMG, "native")
    limit = inspect.signature(stock.__call__).parameters["max_sequence_length"].default
    given = inspect.signature(stock.encode_prompt).parameters

    def encoded(prompt: str) -> list[torch.Tensor]:
        more = {also: prompt for also in ("prompt_2", "prompt_3") if also in given}
        return list(tensors(stock.encode_prompt(prompt, max_sequence_length=limit, **more)))

    def read(count: int) -> bool:
        """Whether the last of so many letters makes a difference."""
        one, other = encoded("a" * count), encoded("a" * (count - 1) + "b")
        return not all(map(torch.equal, one, other))

    reads = next(count for count in range(limit, 0, -1) if read(count))
    asked = [
        job(f"{count}", model=name, prompt="a" * count, num_inference_steps=1)
        for count in (reads, reads + 1)
    ]

    events = run(make_engine(tmp_path), *asked)

    (noted,) = [event for event in events if isinstance(event, JobWarning)]
    assert noted.job_id == f"{reads + 1}"
    begins = name in ("flux_dev", "chroma", "auraflow")
    said = f"the prompt has {reads + 1 + begins} tokens, of which this model reads the first "
    assert noted.note == f"{said}{reads + begins}"


@pytest.mark.slow
@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("name", ["qwen_image_edit", "qwen_image_edit_plus"])
def test_an_instruction_to_edit_with_qwen_may_have_any_length(tmp_path: Path, name: str) -> None:
    tiny.small_by_default(BUILDERS[name](tmp_path / "models" / name))
    grey = Image.new("RGB", (tiny.SIZE, tiny.SIZE), "grey")
    asked = [
        job(end, task=Task.EDIT, model=name, prompt="a" * 1200 + end, num_inference_steps=1).request
        for end in "bc"
    ]

    events = run(
        make_engine(tmp_path),
        *(EngineJob(f"{n}", one, references=(grey,)) for n, one in enumerate(asked)),
    )

    assert not [event for event in events if isinstance(event, JobWarning)]
    (one,), (other,) = developed(events, "0"), developed(events, "1")
    assert one.tobytes() != other.tobytes()  # its end is read


def test_a_step_of_two_calls_is_told_once_it_is_done(tmp_path: Path) -> None:
    """FLUX.2 klein asks for the prompt and for its negative one in a call each."""
    tiny.small_by_default(BUILDERS["flux2_klein"](tmp_path / "models" / "klein"))

    events = run(make_engine(tmp_path), job(model="klein", num_inference_steps=2))

    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert (min(steps), max(steps)) == (1, 2)
    assert isinstance(events[-1], Finished)
