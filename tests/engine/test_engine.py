"""The loop: turns, events, cancelling, failures that stay alone."""

from collections.abc import Iterator

import torch

from darkroom.catalog.models import ModelCatalog
from darkroom.config import EngineSettings
from darkroom.engine import batching
from darkroom.engine.base import (
    Broken,
    Developed,
    EngineJob,
    Finished,
    Previewed,
    Started,
    Stepped,
)
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.sample import Sample
from darkroom.schemas import Task
from tests.engine.conftest import developed, request, run


def test_events_come_in_order(engine: DiffusersEngine) -> None:
    events = run(engine, EngineJob("job", request(num_images=2, num_inference_steps=3)))

    assert events[0] == Started("job", steps=6)
    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert steps == [2, 4, 6]
    assert [e.index for e in events if isinstance(e, Developed)] == [0, 1]
    assert events[-1] == Finished("job")


def test_strength_leaves_the_first_steps_out(engine: DiffusersEngine, source: object) -> None:
    asked = request(Task.IMG2IMG, strength=0.5, num_inference_steps=8)

    events = run(engine, EngineJob("job", asked, source))  # type: ignore[arg-type]

    assert events[0] == Started("job", steps=4)


def test_jobs_in_flight_take_turns(engine: DiffusersEngine) -> None:
    long = EngineJob("long", request(num_inference_steps=20))
    short = EngineJob("short", request(num_inference_steps=2))

    events = run(engine, long, short)

    finished = [event.job_id for event in events if isinstance(event, Finished)]
    assert finished == ["short", "long"]


def test_a_cancelled_job_says_nothing_more(engine: DiffusersEngine) -> None:
    engine.submit(EngineJob("job", request()))
    engine.tick()
    engine.cancel("job")

    assert engine.in_flight() == 0
    assert engine.tick() == []


def test_previews_come_no_more_often_than_set(catalog: ModelCatalog) -> None:
    def clock() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += 0.1  # a tenth of a second passes at each step

    ticks = clock()
    engine = DiffusersEngine(
        catalog, EngineSettings(device="cpu", preview_every_s=0.3), lambda: next(ticks)
    )

    events = run(engine, EngineJob("job", request(num_inference_steps=9)))

    previews = [event for event in events if isinstance(event, Previewed)]
    assert len(previews) == 3
    assert previews[0].webp.startswith(b"RIFF")


def test_a_job_that_cannot_be_done_leaves_its_neighbours_alone(engine: DiffusersEngine) -> None:
    impossible = EngineJob("bad", request(clip_skip=11))  # tintype has three layers
    fine = EngineJob("good", request(num_inference_steps=2))

    events = run(engine, impossible, fine)

    assert [type(e) for e in events if e.job_id == "bad"] == [Broken]
    assert [type(e) for e in events if e.job_id == "good"][-1] is Finished


def test_a_model_that_is_gone_breaks_its_job_only(engine: DiffusersEngine) -> None:
    (event,) = run(engine, EngineJob("job", request(model="gone")))

    assert isinstance(event, Broken)
    assert event.kind == "model"


def guided_sample(index: int) -> Sample:
    nothing = torch.zeros(1)
    return Sample(
        index=index,
        seed=index,
        latents=nothing,
        scheduler=None,
        timesteps=torch.arange(3),
        generator=torch.Generator(),
        prompt_embeds=nothing,
        negative_prompt_embeds=nothing,
        guidance_scale=3.0,
        step_options={},
    )


def test_samples_over_the_row_limit_go_in_turns() -> None:
    samples = [guided_sample(index) for index in range(5)]

    first = batching.choose(samples, max_rows=6)
    for sample in first:
        sample.step += 1

    assert [sample.index for sample in first] == [0, 1, 2]  # two rows each
    assert [sample.index for sample in batching.choose(samples, 6)] == [3, 4, 0]


def test_few_rows_a_call_make_the_same_pictures(
    engine: DiffusersEngine, catalog: ModelCatalog
) -> None:
    job = EngineJob("job", request(num_images=3, num_inference_steps=3))
    narrow = DiffusersEngine(catalog, EngineSettings(device="cpu", max_batch_rows=2))

    wide_pictures = developed(run(engine, job))
    narrow_pictures = developed(run(narrow, job))

    for one, other in zip(wide_pictures, narrow_pictures, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1
