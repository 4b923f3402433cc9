"""One error policy, wherever an error comes from: load, call, step, preview, encode or decode."""

import gc
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from safetensors.torch import load_file, save_file

from darkroom.config import EngineSettings, ModelSettings, Settings
from darkroom.engine import loading
from darkroom.engine.base import EngineJob, Failed, Finished, JobWarning, Started
from darkroom.engine.engine import DiffusersEngine, from_settings
from darkroom.engine.errors import Kind, classify
from darkroom.engine.families.pipeline_run import PipelineRun
from darkroom.engine.runner import Runner
from darkroom.errors import Message
from darkroom.requests import Lora, Task
from tests.effort import sampled
from tests.engine import hardware, lora_files, tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import assert_equal

LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
FULL = torch.OutOfMemoryError("out of memory")
LOST_LORA = Lora(name="gone", scale=1)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny.sd1(folder / "models" / "sd1")
    tiny.sd3(folder / "models" / "sd3")
    return folder


@pytest.fixture(scope="module")
def engine(data_dir: Path) -> DiffusersEngine:
    return make_engine(data_dir)


def small(
    model: str = "sd1", name: str = "job", task: Task = Task.TXT2IMG, **fields: Any
) -> EngineJob:
    scheduler = {"scheduler": "native"} if model == "sd3" else {}
    size = {"width": tiny.SIZE, "height": tiny.SIZE, "num_inference_steps": 3}
    return EngineJob(name, request(task, **{"model": model, **size, **scheduler, **fields}))


@contextmanager
def failing(
    cls: Any, method: str, error: Exception, after: int = 0, times: float = math.inf
) -> Iterator[None]:
    """A method of diffusers that works `after` times, and then raises so many times."""
    real, calls = getattr(cls, method), 0

    def raising(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if after < calls <= after + times:
            raise error
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, method, raising)
        yield


@contextmanager
def changed(module: torch.nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """A network with another output."""
    hook = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        hook.remove()


def not_a_number(output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(not_a_number(value) for value in output)
    return output * float("nan")


def failure(events: list[Any]) -> Failed:
    (found,) = [event for event in events if isinstance(event, Failed)]
    return found


def said(events: list[Any]) -> tuple[str, dict[str, Any]]:
    """What a failure says, for those who translate it."""
    detail = failure(events).detail
    assert isinstance(detail, Message), detail
    return detail.code, dict(detail.values)


# --- what is which -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LOST, Kind.LOST_CONTEXT),
        (RuntimeError("CUDA error: device-side assert triggered"), Kind.LOST_CONTEXT),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Kind.MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), Kind.MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Kind.LOST_CONTEXT),
        (RuntimeError("GET was unable to find an engine to execute this computation"), Kind.MEMORY),
        (FULL, Kind.MEMORY),
        (MemoryError(), Kind.MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Kind.MEMORY),
        (ValueError("strength"), Kind.REQUEST),
        (OSError("no such file"), Kind.MODEL),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (77x16 and 32x8)"), Kind.MODEL),
        (KeyError("x"), Kind.FAULT),
    ],
)
def test_kinds(error: Exception, kind: Kind) -> None:
    assert classify(error) is kind


def test_the_cause_decides() -> None:
    wrapped = OSError("model 'x' cannot be loaded")
    wrapped.__cause__ = LOST

    assert classify(wrapped) is Kind.LOST_CONTEXT


# --- a lost context ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "method", "model"),
    sampled(
        [
            (DDIMScheduler, "step", "sd1"),
            (AutoencoderKL, "decode", "sd1"),
            (FlowMatchEulerDiscreteScheduler, "step", "sd3"),
            (AutoencoderKL, "decode", "sd3"),
        ],
        one_in=3,
    ),
)
def test_a_lost_context_leaves_the_engine(
    data_dir: Path, cls: Any, method: str, model: str
) -> None:
    engine = make_engine(data_dir)
    hardware.model(engine, model)

    with failing(cls, method, LOST), pytest.raises(torch.AcceleratorError):
        run(engine, small(model))


def test_a_context_lost_by_a_transformer_leaves_the_engine(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    transformer = hardware.model(engine, "sd3").family._any.transformer

    def lose(_module: Any, _inputs: Any) -> None:
        raise LOST

    hook = transformer.register_forward_pre_hook(lose)
    with pytest.raises(torch.AcceleratorError):
        run(engine, small("sd3"))
    hook.remove()


def test_a_context_lost_while_loading_leaves_the_engine(data_dir: Path) -> None:
    engine = make_engine(data_dir)

    with failing(AutoencoderKL, "to", LOST), pytest.raises(torch.AcceleratorError):
        run(engine, small())


def test_a_context_lost_by_a_preview_leaves_the_engine(data_dir: Path) -> None:
    engine = make_engine(data_dir, preview_every_s=1e-6)
    preview = hardware.model(engine, "sd1").family._preview

    with failing(type(preview), "render", LOST), pytest.raises(torch.AcceleratorError):
        run(engine, small())


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "model"), [(DDIMScheduler, "sd1"), (FlowMatchEulerDiscreteScheduler, "sd3")]
)
def test_a_step_without_memory_is_made_again(data_dir: Path, cls: Any, model: str) -> None:
    engine = make_engine(data_dir)
    hardware.parallel(engine, model)
    asked = small(model, num_images=2)
    plenty = developed(run(engine, asked))

    with failing(cls, "step", FULL, after=2, times=1):
        events = run(engine, asked)

    assert any(isinstance(event, JobWarning) and "memory" in event.note for event in events)
    for ours, theirs in zip(developed(events), plenty, strict=True):
        assert_equal(ours, theirs)


def test_memory_that_stays_short_ends_the_job(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    hardware.model(engine, "sd1")

    with failing(DDIMScheduler, "step", FULL):
        events = run(engine, small())

    assert failure(events).kind == "out-of-memory"
    assert said(events) == ("out_of_memory", {})
    assert developed(run(engine, small(name="next")), "next")


@pytest.mark.slow
def test_limits_are_of_pixels_and_are_raised_again(data_dir: Path) -> None:
    """One large job without memory does not cut the calls of small ones, nor for ever."""
    engine = make_engine(data_dir, max_batch_rows=64)
    limits = hardware.model(engine).limits
    rows = {(32, 32): 0, (16, 16): 0}

    def look(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        count, _, height, width = given["sample"].shape
        if count * height * width > 1024:
            raise torch.OutOfMemoryError("out of memory")
        rows[height, width] = max(rows[height, width], count)

    unet = hardware.model(engine).family.unet
    hook = unet.register_forward_pre_hook(look, with_kwargs=True)
    large = {"width": 256, "height": 256, "num_inference_steps": 2}
    run(engine, EngineJob("large", request(**large)))
    run(engine, EngineJob("small", request(num_images=4, num_inference_steps=2, guidance_scale=1)))
    hook.remove()

    assert rows[32, 32] == 1
    assert rows[16, 16] == 4
    for _ in range(40):
        before = limits.max_pixels
        run(engine, EngineJob("more", request(num_inference_steps=2)))
        if limits.max_pixels > before:
            return
    raise AssertionError("the limit was not raised")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "code", "values"),
    [
        ({"prompt": "(x:9)"}, "prompt_weight", {"words": "x", "weight": "9", "most": 5.0}),
        ({"clip_skip": 11}, "clip_skip_range", {"given": 11, "most": 3}),
        ({"model": "gone"}, "unknown_model", {"name": "gone"}),
        (
            {"loras": (Lora(name="gone", scale=1),)},
            "unknown_file",
            {"kind": "LoRA", "name": "gone"},
        ),
    ],
)
def test_a_reason_can_be_translated(
    engine: DiffusersEngine, fields: dict[str, Any], code: str, values: dict[str, Any]
) -> None:
    assert said(run(engine, small(**fields))) == (code, values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tear", "code"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "broken_model"),
        (lambda path: save_file(dict(list(load_file(path).items())[1:]), path), "part_lacks"),
    ],
)
def test_what_is_wrong_with_a_model_can_be_translated(
    tmp_path: Path, tear: Callable[[Path], None], code: str
) -> None:
    tiny.sd1(tmp_path / "models" / "sd1")
    engine = make_engine(tmp_path)
    tear(next((tmp_path / "models" / "sd1" / "unet").glob("*.safetensors")))

    assert said(run(engine, small()))[0] == code
    assert said(run(engine, small(name="again")))[0] == code


# --- what is not finite ------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "part"), [("sd1", "unet"), ("sd3", "transformer")])
def test_numbers_that_are_not_finite_make_no_picture(
    engine: DiffusersEngine, model: str, part: str
) -> None:
    family = hardware.model(engine, model).family
    network = family.unet if model == "sd1" else family._any.transformer
    assert part in ("unet", "transformer")

    with changed(network, not_a_number):
        events = run(engine, small(model))

    assert "not finite" in failure(events).detail
    assert said(events) == ("not_finite", {"network": "UNet" if model == "sd1" else "denoiser"})
    assert developed(run(engine, small(model, "next")), "next")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sd1", "sd3"])
def test_a_vae_that_overflows_says_so(engine: DiffusersEngine, model: str) -> None:
    family = hardware.model(engine, model).family
    vae = family.vae.model if model == "sd1" else family._any.vae

    with changed(vae.decoder, not_a_number):
        events = run(engine, small(model))

    assert "VAE" in failure(events).detail


@pytest.mark.parametrize("model", ["sd1", "sd3"])
def test_a_vae_that_overflows_in_half_precision_goes_on_in_float32(
    data_dir: Path, model: str
) -> None:
    engine = make_engine(data_dir, dtype="bfloat16")
    family = hardware.model(engine, model).family
    vae = family.vae.model if model == "sd1" else family._any.vae

    with changed(
        vae.decoder, lambda made: made if made.dtype == torch.float32 else not_a_number(made)
    ):
        events = run(engine, small(model))

    assert developed(events)
    assert vae.dtype == torch.float32
    assert developed(run(engine, small(model, name="next")), "next")
    grey = Image.new("RGB", (tiny.SIZE, tiny.SIZE), "grey")
    again = small(model, task=Task.IMG2IMG).request
    assert developed(run(engine, EngineJob("again", again, grey)), "again")


@pytest.mark.parametrize("model", ["sd1", "sd3"])
def test_an_encoder_that_overflows_in_half_precision_goes_on_in_float32(
    data_dir: Path, model: str
) -> None:
    engine = make_engine(data_dir, dtype="bfloat16")
    family = hardware.model(engine, model).family
    vae = family.vae.model if model == "sd1" else family._any.vae
    grey = Image.new("RGB", (tiny.SIZE, tiny.SIZE), "grey")

    with changed(
        vae.encoder, lambda made: made if made.dtype == torch.float32 else not_a_number(made)
    ):
        events = run(engine, EngineJob("job", small(model, task=Task.IMG2IMG).request, grey))

    assert developed(events)
    assert vae.dtype == torch.float32


def test_a_picture_that_cannot_be_finished_fails_its_job_with_the_reason(
    engine: DiffusersEngine,
) -> None:
    """And no other one of the same call."""
    hardware.model(engine, "sd3")
    real, calls = VaeImageProcessor.postprocess, 0

    def second_fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("this picture cannot be made")
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VaeImageProcessor, "postprocess", second_fails)
        events = run(engine, small("sd3", "first"), small("sd3", "second", seed=8))

    assert failure(events) == Failed("second", "model", "this picture cannot be made")
    assert developed([event for event in events if event.job_id == "first"], "first")


def test_a_picture_without_memory_to_finish_it_is_made_again(engine: DiffusersEngine) -> None:
    hardware.parallel(engine, "sd3")
    asked = small("sd3", num_images=2)
    plenty = developed(run(engine, asked))

    with failing(VaeImageProcessor, "postprocess", FULL, after=1, times=1):
        events = run(engine, asked)

    assert any(isinstance(event, JobWarning) and "memory" in event.note for event in events)
    for ours, theirs in zip(developed(events), plenty, strict=True):
        assert_equal(ours, theirs)


def test_sources_without_memory_to_encode_them_together_are_encoded_one_by_one(
    engine: DiffusersEngine,
) -> None:
    """The warning comes first: the jobs start when their sources are encoded, and only once."""
    grey = Image.new("RGB", (tiny.SIZE, tiny.SIZE), "grey")
    asked = [
        EngineJob(name, small(task=Task.IMG2IMG, seed=seed).request, grey)
        for name, seed in (("a", 7), ("b", 8))
    ]
    plenty = run(engine, *asked)

    with failing(AutoencoderKL, "encode", FULL, times=1):
        events = run(engine, *asked)

    for one in asked:
        own = [event for event in events if event.job_id == one.id]
        assert [type(event) for event in own[:2]] == [JobWarning, Started]
        note = next(event.note for event in own if isinstance(event, JobWarning))
        assert note == "memory was short: 1 picture(s) at a time through the VAE"
        assert sum(isinstance(event, Started) for event in own) == 1
        (ours,), (expected,) = developed(own, one.id), developed(plenty, one.id)
        assert_equal(ours, expected)


def test_the_vae_of_a_transformer_works_in_tiles_where_memory_is_short(data_dir: Path) -> None:
    tiny.small_by_default(tiny_families.z_image(data_dir / "models" / "z_image"))
    engine = make_engine(data_dir)
    hardware.model(engine, "z_image")
    asked = small("z_image", scheduler="native", width=512, height=512, num_inference_steps=1)

    with hardware.vae_memory(engine, pixels=256 * 256, name="z_image"):
        events = run(engine, asked)

    notes = [event.note for event in events if isinstance(event, JobWarning)]
    assert notes == ["memory was short: VAE in tiles of 256 pixels"]
    assert developed(events)[0].size == (512, 512)


# --- the rest ----------------------------------------------------------------------------------


def test_a_preview_that_fails_ends_no_job(data_dir: Path) -> None:
    engine = make_engine(data_dir, preview_every_s=1e-6)
    preview = hardware.model(engine, "sd1").family._preview

    with failing(type(preview), "render", RuntimeError("no preview")):
        events = run(engine, small())

    assert Finished("job") in events


def test_a_model_that_cannot_be_loaded_is_broken_until_its_files_change(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "sd1"
    tiny.sd1(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    engine = make_engine(tmp_path)
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights)

    first = failure(run(engine, small()))
    second = failure(run(engine, small()))

    assert first.kind == second.kind == "model"
    assert "lacks" in first.detail
    assert "lacks" in second.detail
    assert list(engine.broken()) == ["sd1"]
    weights.write_bytes(whole)
    assert developed(run(engine, small()))
    assert engine.broken() == {}


# --- what is left behind -----------------------------------------------------------------------


@contextmanager
def noted(cls: Any) -> Iterator[list[weakref.ref[Any]]]:
    """Each network of a class whose `forward` is called."""
    real, seen = cls.forward, []

    def forward(network: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(network is ref() for ref in seen):
            seen.append(weakref.ref(network))
        return real(network, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "forward", forward)
        yield seen


def left(seen: Sequence[weakref.ref[Any]]) -> int:
    """How many of them are still in memory."""
    assert seen
    gc.collect()
    return sum(ref() is not None for ref in seen)


@pytest.mark.parametrize(
    ("model", "cls"), [("sd1", UNet2DConditionModel), ("sd3", SD3Transformer2DModel)]
)
def test_a_model_that_does_not_work_is_not_kept_in_memory(
    tmp_path: Path, model: str, cls: Any
) -> None:
    tiny.BUILDERS[model](tmp_path / "models" / model)
    engine = make_engine(tmp_path)
    real = cls.forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "forward", lambda *a, **k: not_a_number(real(*a, **k)))
        with noted(cls) as seen:
            events = run(engine, small(model))

    assert "not finite" in failure(events).detail
    assert list(engine.broken()) == [model]
    assert left(seen) == 0


def test_a_model_is_gone_when_one_picture_of_a_job_could_not_be_begun(tmp_path: Path) -> None:
    """The others had begun: their pipelines are suspended in the middle."""
    tiny.sd3(tmp_path / "models" / "sd3")
    engine = make_engine(tmp_path)

    with noted(SD3Transformer2DModel) as seen:
        assert developed(run(engine, small("sd3")))
    with failing(PipelineRun, "__init__", ValueError("no"), after=1):
        events = run(engine, small("sd3", num_images=2))

    assert failure(events).detail == "no"
    assert engine.unload("sd3")
    assert left(seen) == 0


def test_a_model_is_gone_while_the_seconds_of_its_calls_are_not_known(tmp_path: Path) -> None:
    """As on a GPU, which tells them when it has come to the end of the queue."""
    tiny.sd1(tmp_path / "models" / "sd1")
    engine = make_engine(tmp_path)

    with noted(UNet2DConditionModel) as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "_start", lambda _runner, **_about: lambda: lambda: None)
        assert developed(run(engine, small()))

    assert engine.unload("sd1")
    assert left(seen) == 0


def test_a_load_that_nobody_waits_for_fails_no_other_model(tmp_path: Path) -> None:
    for name in ("large", "sd1"):
        tiny.sd1(tmp_path / "models" / name)
    engine = make_engine(tmp_path)

    with failing(loading, "load_pipeline", RuntimeError("can't allocate memory"), times=1):
        engine.submit(small("large", "cancelled"))
        engine.tick()
        assert engine._models.loading
        engine.cancel("cancelled")
        events = run(engine, small("sd1"))

    assert developed(events)


def test_a_default_model_that_is_broken_stops_nobody_else(tmp_path: Path) -> None:
    for name in ("broken", "sd1"):
        tiny.sd1(tmp_path / "models" / name)
    weights = tmp_path / "models" / "broken" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights)
    settings = Settings(
        data_dir=tmp_path,
        engine=EngineSettings(device="cpu", dtype="float32"),
        models=ModelSettings(default="broken"),
    )
    engine = from_settings(settings)

    engine.warm_up()

    assert failure(run(engine, small("broken"))).kind == "model"
    assert developed(run(engine, small("sd1")))


@pytest.mark.slow
def test_a_lora_that_was_replaced_under_its_name_is_heard_in_the_prompt(tmp_path: Path) -> None:
    """Also by negative prompts, which were encoded with the other one."""
    tiny.sd1(tmp_path / "models" / "sd1")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "models" / "sd1")
    path = tmp_path / "loras" / "style.safetensors"
    path.parent.mkdir()
    lora_files.kohya(path, lora_files.draw(pipeline, seed=1))
    asked = small(loras=(Lora(name="style"),))
    engine = make_engine(tmp_path)
    (before,) = developed(run(engine, asked))

    lora_files.kohya(path, lora_files.draw(pipeline, seed=2))
    (after,) = developed(run(engine, asked))

    (fresh,) = developed(run(make_engine(tmp_path), asked))
    assert_equal(after, fresh)
    assert before.tobytes() != after.tobytes()
