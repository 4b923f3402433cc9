"""The loop: sharing, turns, events, cancelling, failures that stay alone."""

import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from darkroom.catalog.model_entry import ModelEntry
from darkroom.engine import loading
from darkroom.engine.base import (
    EngineEvent,
    EngineJob,
    Failed,
    Finished,
    ImageReady,
    JobWarning,
    Previewed,
    Started,
    Stepped,
)
from darkroom.engine.engine import DiffusersEngine
from darkroom.requests import Task
from tests.effort import sampled
from tests.engine import hardware, tiny
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import assert_equal


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> DiffusersEngine:
    """An engine that measured that calls of up to 16 rows take no longer than calls of one.

    By a real clock, a busy machine may find that more rows do not pay.
    """
    return make_engine(tmp_path_factory.mktemp("data"), hardware.Clock(step=3 / 128))


def test_events_come_in_order(engine: DiffusersEngine) -> None:
    events = run(engine, EngineJob("job", request(num_images=2, num_inference_steps=3)))

    assert events[0] == Started("job", steps=6)
    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert steps == sorted(steps)
    assert steps[-1] == 6
    assert [e.index for e in events if isinstance(e, ImageReady)] == [0, 1]
    assert events[-1] == Finished("job")


def test_strength_leaves_the_first_steps_out(engine: DiffusersEngine, source: Image.Image) -> None:
    asked = request(Task.IMG2IMG, strength=0.5, num_inference_steps=8)

    events = run(engine, EngineJob("job", asked, source))

    assert events[0] == Started("job", steps=4)


def test_unlike_jobs_share_their_calls(
    sharing: DiffusersEngine, source: Image.Image, source_mask: Image.Image
) -> None:
    jobs = [
        EngineJob("a", request(scheduler="euler_a", num_inference_steps=5)),
        EngineJob("b", request(Task.IMG2IMG, scheduler="dpmpp_2m"), source),
        EngineJob("c", request(Task.INPAINT, scheduler="unipc"), source, source_mask),
        EngineJob("d", request(prompt="fox " * 100, num_inference_steps=4)),
    ]

    with hardware.counting(sharing) as calls:
        run(sharing, *jobs)

    assert calls == [8, 8, 8, 8, 2]  # of 5, 4, 4 and 4 steps, two rows each


def test_without_guidance_a_picture_takes_one_row(engine: DiffusersEngine) -> None:
    with hardware.counting(engine) as calls:
        run(engine, EngineJob("job", request(guidance_scale=1.0, num_inference_steps=3)))

    assert calls == [1, 1, 1]


def test_exact_jobs_share_no_call(engine: DiffusersEngine) -> None:
    exact = request(exact=True, num_images=2, num_inference_steps=3)

    with hardware.counting(engine) as calls:
        run(engine, EngineJob("a", exact), EngineJob("b", exact))

    assert calls == [2] * 12


def test_a_short_job_overtakes_a_long_one(engine: DiffusersEngine) -> None:
    long = EngineJob("long", request(num_inference_steps=20))
    short = EngineJob("short", request(num_inference_steps=2))

    events = run(engine, long, short)

    finished = [event.job_id for event in events if isinstance(event, Finished)]
    assert finished == ["short", "long"]


@pytest.mark.slow
def test_sizes_that_cannot_share_take_turns(engine: DiffusersEngine) -> None:
    big = EngineJob("big", request(width=192, height=192, num_inference_steps=6))
    small = EngineJob("small", request(num_inference_steps=6))

    events = run(engine, big, small)

    order = [event.job_id for event in events if isinstance(event, Stepped)]
    assert "small" in order[:2]
    assert "big" in order[:2]


def test_a_cancelled_job_says_nothing_more(engine: DiffusersEngine) -> None:
    engine.submit(EngineJob("job", request()))
    engine.tick()
    engine.cancel("job")

    assert engine.in_flight() == 0
    assert engine.tick() == []


@pytest.mark.slow
def test_previews_come_no_more_often_than_set(tmp_path: Path) -> None:
    clock = hardware.Clock()
    engine = make_engine(tmp_path, clock, preview_every_s=0.3)
    hardware.model(engine)  # which is measured, and takes time
    clock.step = 0.0
    engine.submit(EngineJob("job", request(num_inference_steps=9)))

    previews: list[Previewed] = []
    while engine.in_flight():
        clock.now += 0.1
        previews += [event for event in engine.tick() if isinstance(event, Previewed)]

    assert len(previews) == 3
    assert previews[0].webp.startswith(b"RIFF")


def test_every_picture_of_a_job_is_previewed(engine: DiffusersEngine) -> None:
    job = request(num_inference_steps=3, num_images=3)

    events = run(engine, EngineJob("job", job))

    previews = [event for event in events if isinstance(event, Previewed)]
    firsts = {event.index: event.webp for event in reversed(previews)}
    assert firsts.keys() == {0, 1, 2}
    assert len(set(firsts.values())) == 3
    assert all(1 <= event.step <= event.steps == 3 for event in previews)


@pytest.mark.slow
def test_a_job_of_many_pictures_and_steps_has_few_previews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.engine.engine.MOST_PREVIEWS", 15)  # as 150 of ten times the steps
    clock = hardware.Clock()
    engine = make_engine(tmp_path, clock, preview_every_s=1e-6)
    hardware.model(engine)
    clock.step = 0.0
    engine.submit(EngineJob("job", request(num_inference_steps=6, num_images=3)))

    previews: list[Previewed] = []
    while engine.in_flight():
        clock.now += 0.1  # and making a preview takes no time
        previews += [event for event in engine.tick() if isinstance(event, Previewed)]

    of_each = Counter(event.index for event in previews)
    assert of_each.keys() == set(range(3))
    assert min(of_each.values()) >= 2
    assert len(previews) <= 15 + 3


def test_a_job_that_cannot_be_done_leaves_its_neighbours_alone(engine: DiffusersEngine) -> None:
    impossible = EngineJob("bad", request(clip_skip=11))  # tintype has three layers
    fine = EngineJob("good", request(num_inference_steps=2))

    events = run(engine, impossible, fine)

    broken = [event for event in events if event.job_id == "bad"]
    assert [type(event) for event in broken] == [Failed]
    assert broken[0].kind == "request"  # type: ignore[union-attr]
    assert [type(e) for e in events if e.job_id == "good"][-1] is Finished


def test_a_scheduler_that_cannot_go_on_breaks_its_job_only(engine: DiffusersEngine) -> None:
    """LCM was distilled for 50 steps at the most."""
    too_many = EngineJob("bad", request(scheduler="lcm", num_inference_steps=60))
    fine = EngineJob("good", request(num_inference_steps=2))

    events = run(engine, too_many, fine)

    (broken,) = [event for event in events if isinstance(event, Failed)]
    assert (broken.job_id, broken.kind) == ("bad", "request")
    assert "50" in broken.detail
    assert developed([e for e in events if e.job_id == "good"], "good")


@pytest.mark.slow
def test_a_call_that_fails_is_made_again_for_each_alone(sharing: DiffusersEngine) -> None:
    """Only the one whose fault it is breaks; the others lose nothing."""
    jobs = [EngineJob(name, request(num_inference_steps=4)) for name in ("a", "b")]
    poison = EngineJob("poison", request(prompt="poison", num_inference_steps=4))

    with hardware.failing_on(sharing, poison.request):
        events = run(sharing, *jobs, poison)

    (broken,) = [event for event in events if isinstance(event, Failed)]
    assert (broken.job_id, broken.kind) == ("poison", "engine")
    alone = developed(run(sharing, EngineJob("alone", jobs[0].request)), "alone")
    for job in jobs:
        (picture,) = developed([e for e in events if e.job_id == job.id], job.id)
        assert picture.tobytes() == alone[0].tobytes()


def test_a_model_that_is_gone_breaks_its_job_only(engine: DiffusersEngine) -> None:
    (event,) = run(engine, EngineJob("job", request(model="gone")))

    assert isinstance(event, Failed)
    assert event.kind == "model"
    assert "gone" in event.detail


def test_no_call_has_more_rows_than_set(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, max_batch_rows=2)

    with hardware.counting(engine) as calls:
        run(engine, EngineJob("job", request(num_images=3, num_inference_steps=2)))

    assert set(calls) == {2}


# --- models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    tiny.sd1(data_dir / "models" / "sd1")
    tiny.sdxl(data_dir / "models" / "sdxl")
    return data_dir


def small(model: str, **fields: object) -> EngineJob:
    size = {"width": tiny.SIZE, "height": tiny.SIZE}
    return EngineJob(model, request(**{"model": model, **size, **fields}))


@pytest.mark.slow
def test_models_that_fit_take_turns(two_models: Path) -> None:
    engine = make_engine(two_models)
    for name in ("sd1", "sdxl"):
        hardware.model(engine, name)

    events = run(engine, small("sd1"), small("sdxl"))

    order = [event.job_id for event in events if isinstance(event, Stepped)]
    assert order != sorted(order)
    assert len(developed(events, "sd1")) == len(developed(events, "sdxl")) == 1


def test_steps_go_on_while_another_model_is_read(two_models: Path) -> None:
    """However long its files take: here until the job beside it is done."""
    engine = make_engine(two_models)
    hardware.model(engine, "sd1")
    done = threading.Event()
    real = loading._read_ahead

    def slow_disk(entry: ModelEntry) -> None:
        assert done.wait(60)
        real(entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_read_ahead", slow_disk)
        engine.submit(small("sdxl"))
        engine.tick()
        events = run_until(engine, Finished("sd1"), small("sd1"))
        assert "sdxl" not in engine.resident()
        done.set()
        events += run_until(engine, Finished("sdxl"))

    assert developed(events, "sd1")
    assert developed(events, "sdxl")


def test_a_job_is_cancelled_while_its_model_is_read(two_models: Path) -> None:
    engine = make_engine(two_models)
    go_on = threading.Event()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_read_ahead", lambda _entry: go_on.wait(60))
        engine.submit(small("sdxl"))
        engine.tick()
        engine.cancel("sdxl")
        assert engine.in_flight() == 0
        go_on.set()

    assert developed(run(engine, small("sd1")), "sd1")


def run_until(engine: DiffusersEngine, last: EngineEvent, *jobs: EngineJob) -> list[EngineEvent]:
    """The events up to one."""
    for job in jobs:
        engine.submit(job)
    events: list[EngineEvent] = []
    while last not in events:
        events += engine.tick()
    return events


@pytest.mark.slow
def test_models_that_do_not_fit_follow_each_other(two_models: Path) -> None:
    """With room for one, the second waits, and nobody overtakes it to keep the first one there."""
    engine = make_engine(two_models, memory_budget_bytes=2**20)
    engine.submit(small("sd1"))
    engine.submit(small("sdxl"))
    events: list[EngineEvent] = []
    while not events:  # it is being loaded
        events += engine.tick()

    events += run(engine, EngineJob("late", small("sd1").request))

    finished = [event.job_id for event in events if isinstance(event, Finished)]
    assert finished == ["sd1", "sdxl", "late"]


@pytest.mark.parametrize("room", [2**20, 2**30])
def test_the_engine_tells_what_is_in_memory_and_what_fits_beside(
    two_models: Path, room: int
) -> None:
    engine = make_engine(two_models, memory_budget_bytes=room)
    nothing = engine.resident(), engine.fits("sd1")

    run(engine, small("sd1"))

    assert nothing == ({}, True)
    assert list(engine.resident()) == ["sd1"]
    assert engine.resident()["sd1"].load_seconds > 0
    assert engine.resident()["sd1"].bytes > 0
    assert (engine.fits("sd1"), engine.fits("sdxl")) == (True, room == 2**30)
    assert engine.fits("no such model")  # and nothing is unloaded for its failure


def test_a_model_is_unloaded_unless_a_job_uses_it(two_models: Path) -> None:
    engine = make_engine(two_models)
    hardware.model(engine, "sd1")
    engine.submit(small("sd1"))
    engine.tick()

    assert not engine.unload("sd1")
    engine.cancel("sd1")
    assert engine.unload("sd1")

    assert engine.resident() == {}
    assert not engine.unload("sd1")
    assert len(developed(run(engine, small("sd1")), "sd1")) == 1


# --- memory ------------------------------------------------------------------------------------


def notes(events: list[object]) -> list[str]:
    return [event.note for event in events if isinstance(event, JobWarning)]


@pytest.mark.slow
def test_with_little_memory_calls_are_cut_and_the_job_says_so(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    asked = EngineJob("job", request(num_images=2, num_inference_steps=3))
    plenty = developed(run(engine, asked))

    with hardware.unet_memory(engine, rows=1):
        events = run(engine, asked)

    assert "memory was short: calls of at most 1 row(s) of this size" in notes(events)
    for ours, theirs in zip(developed(events), plenty, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.slow
def test_with_little_memory_the_vae_works_in_tiles(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    asked = EngineJob("job", request(width=512, height=512, num_inference_steps=1))

    with hardware.vae_memory(engine, pixels=256 * 256):
        events = run(engine, asked)

    assert notes(events) == ["memory was short: VAE in tiles of 256 pixels"]
    assert developed(events)[0].size == (512, 512)


def test_with_no_memory_the_job_breaks_and_the_next_one_does_not(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)

    with hardware.unet_memory(engine, rows=0):
        events = run(engine, EngineJob("job", request(num_inference_steps=1)))

    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "out-of-memory"
    assert developed(run(engine, EngineJob("next", request(num_inference_steps=1))), "next")


@pytest.mark.slow
@pytest.mark.parametrize("exact", sampled([False, True]))
def test_one_job_does_not_wait_for_another_clients_twelve(tmp_path: Path, exact: bool) -> None:
    engine = make_engine(tmp_path, hardware.Clock())  # every call takes the same time
    engine.warm_up()
    asked = request(num_inference_steps=12, exact=exact)
    for number in range(12):
        engine.submit(EngineJob(f"a{number}", asked, client="a"))
    for _ in range(5):
        engine.tick()

    engine.submit(EngineJob("b", asked, client="b"))
    ticks = 1
    while Finished("b") not in engine.tick():
        ticks += 1

    assert ticks <= 12 * (1 + 2)
