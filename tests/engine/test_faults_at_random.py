"""Hundreds of jobs of six models, whose networks fail now and then: each job ends as it should.

Cursed jobs fail for as long as their rows are in a call: with NaN, a ValueError or a RuntimeError.
Besides, large calls run out of memory, the GPU's context is lost, and previews cannot be made.
"""

import inspect
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from darkroom.engine.base import EngineJob, Failed, Finished, ImageReady, JobWarning
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import Task
from tests.effort import amount
from tests.engine import hardware, tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import difference

TOGETHER = 20  # jobs in flight
MODELS = ("sd1", "z_image", "sdxl", "sd3", "flux_dev", "qwen_image")
NETWORKS = (  # and their name for the timesteps of the rows
    (diffusers.UNet2DConditionModel, "timestep"),
    (diffusers.SD3Transformer2DModel, "timestep"),
    (diffusers.FluxTransformer2DModel, "timestep"),
    (diffusers.ZImageTransformer2DModel, "t"),
    (diffusers.QwenImageTransformer2DModel, "timestep"),
)
# The class of a curse → the kind of the failure. Cursed jobs take these numbers of steps, which no
# others do, so that their timesteps tell their rows.
CURSES = {"NaN": "model", "ValueError": "request", "RuntimeError": "engine"}
STEPS = {"NaN": 5, "ValueError": 6, "RuntimeError": 7}
LARGE = 4  # rows


Row = tuple[str, float]


@dataclass
class Faults:
    """What fails, and when. Nothing fails until `curses` or `due` say so.

    Attributes:
        seen: every row of a call so far, as the network and its timestep.
        curses: the class of the curse of such rows.
        due: of faults that strike the next call, large call or preview, how many.
        struck: how many did.
    """

    seen: set[Row] = field(default_factory=set)
    curses: dict[Row, str] = field(default_factory=dict)
    due: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)

    def strikes(self, what: str) -> bool:
        if not self.due[what]:
            return False
        self.due[what] -= 1
        self.struck[what] += 1
        return True

    def before(self, rows: Sequence[Row]) -> None:
        """Look at a call of these rows. Raises what strikes it."""
        self.seen |= set(rows)
        if self.strikes("lost context"):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        # The rows of a model's first calls, which measure it, are all at one timestep.
        if len(set(rows)) > 1 and len(rows) >= LARGE and self.strikes("memory"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        curses = {self.curses.get(row) for row in rows}
        if "ValueError" in curses:
            raise ValueError("cursed")
        if "RuntimeError" in curses:
            raise RuntimeError("cursed")

    def after(self, rows: Sequence[Row], output: Any) -> None:
        """Spoil the rows of an output that are cursed with NaN."""
        for row, values in zip(rows, output, strict=True):
            if self.curses.get(row) == "NaN":
                values.fill_(float("nan"))

    @contextmanager
    def around(self) -> Iterator[None]:
        """Calls of all networks and previews go by these faults meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for cls, name in NETWORKS:
                patch.setattr(cls, "forward", self._wrapped(cls.forward, name))
            patch.setattr(Image.Image, "save", self._saving(Image.Image.save))
            yield

    def _wrapped(self, forward: Callable[..., Any], name: str) -> Callable[..., Any]:
        signature = inspect.signature(forward)

        def call(network: Any, *args: Any, **kwargs: Any) -> Any:
            given = signature.bind(network, *args, **kwargs).arguments[name]
            which = f"{type(network).__name__} {network.config.get('cross_attention_dim')}"
            rows = [(which, round(float(timestep), 4)) for timestep in given.reshape(-1)]
            self.before(rows)
            output = forward(network, *args, **kwargs)
            self.after(rows, output[0])
            return output

        call.__signature__ = signature  # type: ignore[attr-defined]  # diffusers looks at it
        return call

    def _saving(self, save: Callable[..., None]) -> Callable[..., None]:
        def call(picture: Any, file: Any, kind: str | None = None, **options: Any) -> None:
            if kind == "WEBP" and self.strikes("preview"):
                raise OSError("the preview cannot be written")
            save(picture, file, kind, **options)

        return call


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def build(data_dir: Path) -> None:
    builders = tiny_families.BUILDERS | tiny.BUILDERS
    for name in MODELS:
        folder = data_dir / "models" / name
        if not folder.exists():
            tiny.small_by_default(builders[name](folder))


def started(data_dir: Path) -> DiffusersEngine:
    """An engine that makes all previews it can, and large calls however busy the machine is."""
    return make_engine(data_dir, hardware.Clock(step=3 / 128), preview_every_s=1e-6)


def job(model: str, task: Task = Task.TXT2IMG, **fields: Any) -> EngineJob:
    values = {
        "model": model,
        "width": tiny.SIZE,
        "height": tiny.SIZE,
        "num_inference_steps": 3,
        "scheduler": "euler" if model in ("sd1", "sdxl") else "native",
        "negative_prompt": "",
    }
    asked = request(task, **values | fields)
    grey = Image.new("RGB", (asked.width, asked.height), "grey")
    mask = Image.new("L", grey.size, 0)
    mask.paste(255, (16, 16, 48, 48))
    return EngineJob("job", asked, grey, mask)


def pool(model: str) -> list[EngineJob]:
    """What is asked of a model, again and again."""
    return [
        job(model),
        job(model, num_inference_steps=4, guidance_scale=1.0, prompt="a fox"),
        job(model, Task.IMG2IMG, num_images=2, strength=0.9),
        job(model, Task.INPAINT, num_inference_steps=2, keep_unmasked=True),
        job(model, exact=True, seed=21),
        job(model, width=96, num_inference_steps=2, prompt="a green apple on a table"),
    ]


@dataclass
class Ran:
    """What came of a job, the last time that it ran."""

    pictures: dict[int, Image.Image] = field(default_factory=dict)
    warnings: int = 0
    end: Finished | Failed | None = None


def worked_on(data_dir: Path, jobs: Sequence[EngineJob], arm: Callable[[int], None]) -> list[Ran]:
    """Run the jobs, `TOGETHER` at a time, as the worker does: with a new engine after a lost one.

    Args:
        arm: is called with the number of each job when it is submitted first.
    """
    ran = [Ran() for _ in jobs]
    engine = started(data_dir)
    waiting = list(range(len(jobs)))
    running: list[int] = []
    while waiting or running:
        while waiting and len(running) < TOGETHER:
            running.append(waiting.pop(0))
            arm(running[-1])
            engine.submit(jobs[running[-1]])
        try:
            events = engine.tick()
        except torch.AcceleratorError:
            engine._models.wait(600)  # its process would end, and what it loads with it
            engine = started(data_dir)
            for number in running:
                ran[number] = Ran()
                engine.submit(jobs[number])
            continue
        for event in events:
            number = int(event.job_id)
            assert ran[number].end is None, "an event after the end"
            match event:
                case ImageReady(index=index, picture=picture):
                    ran[number].pictures[index] = picture
                case JobWarning():
                    ran[number].warnings += 1
                case Finished() | Failed():
                    ran[number].end = event
                    running.remove(number)
    assert engine.in_flight() == 0
    return ran


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_job_ends_as_it_should(data_dir: Path) -> None:
    """Two in a hundred have each kind of fault."""
    faults, chance = Faults(), random.Random(16)
    count = amount(150, 150, 3000)
    each = count // 50
    build(data_dir)
    right: list[tuple[EngineJob, list[Image.Image]]] = []
    cursed: dict[str, list[EngineJob]] = {curse: [] for curse in CURSES}
    with faults.around():
        calm = started(data_dir)
        for model in MODELS:
            faults.seen = set()
            right += [(one, developed(run(calm, one))) for one in pool(model)]
            known = faults.seen
            for curse, steps in STEPS.items():
                faults.seen = set()
                cursed[curse].append(job(model, num_inference_steps=steps))
                developed(run(calm, cursed[curse][-1]))
                own = faults.seen - known
                assert own
                known |= own
                faults.curses |= dict.fromkeys(own, curse)
        del calm

        chosen = [chance.choice(right) for _ in range(count)]
        jobs = [one for one, _ in chosen]
        curses: dict[int, str] = {}
        for curse in CURSES:
            for number in chance.sample(sorted(set(range(count)) - curses.keys()), each):
                curses[number] = curse
                jobs[number] = chance.choice(cursed[curse])
        jobs = [
            replace(one, id=str(number), client="ab"[number % 2]) for number, one in enumerate(jobs)
        ]
        others = ("lost context", "memory", "preview")
        early = range(count - TOGETHER)  # so that each fault still finds a call
        strikes = {what: set(chance.sample(early, each)) for what in others}

        def arm(number: int) -> None:
            faults.due.update(what for what in others if number in strikes[what])

        ran = worked_on(data_dir, jobs, arm)

    for number, (one, result) in enumerate(zip(jobs, ran, strict=True)):
        if number in curses:
            assert isinstance(result.end, Failed), one.request
            assert result.end.kind == CURSES[curses[number]]
            assert "cursed" in result.end.detail or "not finite" in result.end.detail
            continue
        assert isinstance(result.end, Finished), result.end
        for index, expected in enumerate(chosen[number][1]):
            ours = result.pictures[index]
            if one.model_request.exact:
                assert ours.tobytes() == expected.tobytes()
            assert difference(ours, expected) <= 1
    assert faults.struck["lost context"] == faults.struck["preview"] == each
    assert 0 < faults.struck["memory"] <= each  # a model that ran out makes no large calls for long
    assert any(result.warnings for result in ran)
