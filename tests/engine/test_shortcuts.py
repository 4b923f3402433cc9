"""What may be switched on to be faster, each against the engine without it."""

import copy
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from darkroom.engine import packing
from darkroom.engine.base import EngineJob, Failed
from darkroom.engine.denoiser import DeepCache, collate
from darkroom.engine.engine import DiffusersEngine
from darkroom.engine.packing import PackedConv2d
from darkroom.requests import MODEL_TASKS, Lora, Task
from tests.effort import sampled
from tests.engine import hardware, tiny, tiny_families
from tests.engine.conftest import developed, make_engine, request, run
from tests.engine.stock import assert_equal


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("sd1", "sdxl", "lcm"):
        tiny.BUILDERS[name](folder / "models" / name)
    return folder


def small(model: str, name: str = "job", **fields: object) -> EngineJob:
    size = {"width": tiny.SIZE, "height": tiny.SIZE}
    return EngineJob(name, request(**{"model": model, **size, **fields}))


def unlikeness(ours: Image.Image, theirs: Image.Image) -> float:
    """Mean difference of their pixels, of 255."""
    difference = np.asarray(ours, dtype=np.int16) - np.asarray(theirs, dtype=np.int16)
    return float(np.abs(difference).mean())


# --- deep cache --------------------------------------------------------------------------------


@pytest.mark.slow
def test_deep_cache_gives_nearly_the_same_picture(data_dir: Path) -> None:
    fields = {"num_inference_steps": 12, "guidance_scale": 3.0}
    asked = EngineJob("job", request(**fields))
    (exact,) = developed(run(make_engine(data_dir), asked))
    another = EngineJob("job", request(**fields, prompt="a house"))
    (other,) = developed(run(make_engine(data_dir), another))

    (cached,) = developed(run(make_engine(data_dir, deep_cache_interval=2), asked))

    assert cached.tobytes() != exact.tobytes()
    assert unlikeness(cached, exact) < unlikeness(other, exact) / 20


@pytest.mark.slow
@pytest.mark.parametrize("model", sampled(["tintype", "sd1", "sdxl", "lcm"]))
def test_the_outer_layers_are_called_as_the_unet_calls_them(data_dir: Path, model: str) -> None:
    """With the deep part's true answer they give the UNet's output."""
    engine = make_engine(data_dir)
    asked = EngineJob("job", request(model=model)) if model == "tintype" else small(model)
    run(engine, asked)
    family = hardware.model(engine, model).family
    with torch.inference_mode():
        sample = family.prepare([asked])["job"][0]
        call = collate([sample], [sample.model_input])
        cache = DeepCache(family.unet, 2)

        whole, deep = cache({**call, "deep": None})
        outer, _ = cache({**call, "deep": deep})

        assert torch.equal(whole, family.unet(**call, return_dict=False)[0])
        assert torch.allclose(outer, whole, atol=1e-5)


@pytest.mark.slow
def test_deep_cache_is_each_samples_own(data_dir: Path) -> None:
    """At different steps in one call, each uses what was kept for it."""
    engine = make_engine(data_dir, deep_cache_interval=3)
    engine.warm_up()
    jobs = [small("sd1", f"{steps}", num_inference_steps=steps) for steps in (5, 7, 8)]
    alone = [developed(run(engine, job), job.id)[0] for job in jobs]

    for _ in range(2):
        engine.submit(jobs[1])
        engine.tick()
    in_company = run(engine, jobs[0], jobs[2])

    for job, picture in zip(jobs, alone, strict=True):
        (ours,) = developed(in_company, job.id)
        assert_equal(ours, picture)


def test_deep_cache_does_less(data_dir: Path) -> None:
    engine = make_engine(data_dir, deep_cache_interval=3)

    with hardware.counting(engine) as whole_calls:
        run(engine, EngineJob("job", request(num_inference_steps=9)))

    assert len(whole_calls) == 3


# --- first-block cache -------------------------------------------------------------------------

TRANSFORMERS = ("flux_dev", "qwen_image")
UNCACHED = ("chroma", "flux2_klein", "sd3", "z_image")
FEW, MANY = 1e-9, 1.0  # shares: of these, nearly no step and nearly every step is below


@pytest.fixture(scope="module")
def transformers_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    for name in TRANSFORMERS + UNCACHED:
        tiny.small_by_default(tiny_families.BUILDERS[name](folder / "models" / name))
    return folder


def flow(model: str, name: str = "job", **fields: object) -> EngineJob:
    values = {"scheduler": "native", "negative_prompt": "", "num_inference_steps": 8, **fields}
    return small(model, name, **values)


def last_block(engine: DiffusersEngine, model: str) -> torch.nn.Module:
    """The one that is called last."""
    transformer = hardware.denoiser(engine, model)
    blocks = ("single_transformer_blocks", "transformer_blocks", "layers")
    found: torch.nn.Module = next(
        getattr(transformer, name) for name in blocks if hasattr(transformer, name)
    )[-1]
    return found


@pytest.mark.parametrize("model", sampled(TRANSFORMERS))
def test_the_first_block_cache_skips_nothing_while_much_changes(
    transformers_dir: Path, model: str
) -> None:
    asked = flow(model)
    (plain,) = developed(run(make_engine(transformers_dir), asked))

    (cached,) = developed(run(make_engine(transformers_dir, first_block_cache=FEW), asked))

    assert_equal(cached, plain)


@pytest.mark.parametrize("model", sampled(TRANSFORMERS))
def test_the_first_block_cache_skips_blocks(transformers_dir: Path, model: str) -> None:
    engine = make_engine(transformers_dir, first_block_cache=MANY)
    layers = [part for part in last_block(engine, model).modules() if type(part) is nn.Linear]
    calls: list[int] = []
    layers[0].register_forward_pre_hook(lambda *_: calls.append(1))

    run(engine, flow(model, guidance_scale=1.0, num_inference_steps=40))

    assert 1 <= len(calls) <= 20
    assert not hardware.model(engine, model).family._cache._kept


@pytest.mark.slow
@pytest.mark.parametrize("model", sampled(TRANSFORMERS))
def test_the_first_block_cache_is_each_samples_own(transformers_dir: Path, model: str) -> None:
    engine = make_engine(transformers_dir, first_block_cache=0.05)
    jobs = [flow(model, f"{n}", num_inference_steps=n, prompt="a fox" * n) for n in (5, 8)]
    alone = [developed(run(engine, job), job.id)[0] for job in jobs]

    in_company = run(engine, *jobs)

    for job, picture in zip(jobs, alone, strict=True):
        (ours,) = developed(in_company, job.id)
        assert_equal(ours, picture)


@pytest.mark.slow
def test_an_exact_job_skips_nothing(transformers_dir: Path) -> None:
    asked = flow("flux_dev", exact=True)
    (plain,) = developed(run(make_engine(transformers_dir), asked))

    engine = make_engine(transformers_dir, first_block_cache=MANY)
    events = run(engine, asked, flow("flux_dev", "other", seed=9))

    (cached,) = developed(events, "job")
    assert cached.tobytes() == plain.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("model", UNCACHED)
def test_a_transformer_that_cannot_be_cached_draws_without(
    transformers_dir: Path, model: str
) -> None:
    asked = flow(model, num_inference_steps=2)
    (plain,) = developed(run(make_engine(transformers_dir), asked))

    (ours,) = developed(run(make_engine(transformers_dir, first_block_cache=MANY), asked))

    assert_equal(ours, plain)


# --- packed ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", sampled(MODEL_TASKS))
def test_any_size_runs_on_weights_laid_out_for_another(data_dir: Path, task: Task) -> None:
    engine = make_engine(data_dir)
    grey, white = Image.new("RGB", (200, 104), "grey"), Image.new("L", (200, 104), 255)

    (picture,) = developed(
        run(engine, EngineJob("job", request(task, width=200, height=104), grey, white))
    )

    assert picture.size == (200, 104)


def test_weights_are_laid_out_anew_for_other_sizes_once() -> None:
    """oneDNN does it at every call otherwise, which takes seventy times as long as the call."""
    plain = torch.nn.Conv2d(224, 224, 3, padding=1).eval()
    with torch.inference_mode():
        packed = PackedConv2d(plain, torch.Size((2, 224, 4, 4)))
        sizes = [torch.randn(2, 224, *size) for size in ((2, 2), (4, 4), (6, 4), (4, 6), (5, 7))]
        for x in sizes:
            torch.testing.assert_close(packed(x), plain(x))

        assert cpu_s(packed, sizes) < 10 * cpu_s(plain, sizes)
    kept = {id(weight) for weight in packed._packed.values()}
    assert len(kept) < len(sizes)


@pytest.mark.skipif(
    not packing._packs(torch.bfloat16), reason="oneDNN packs no bfloat16 on this CPU"
)
@pytest.mark.parametrize("layer", [nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 32)])
def test_packed_layers_change_their_type(layer: nn.Conv2d | nn.Linear) -> None:
    """A VAE does that overflows in half precision."""
    plain = copy.deepcopy(layer).to(torch.bfloat16).eval()
    x = torch.randn(2, 32, 8, 32)
    with torch.inference_mode():
        packed = nn.Sequential(plain)
        packing.pack(packed, lambda: packed(x.to(torch.bfloat16)))
        assert type(packed[0]) is not type(plain)

        packed.to(torch.float32)

        torch.testing.assert_close(packed(x), plain.to(torch.float32)(x))


def cpu_s(layer: torch.nn.Module, sizes: list[torch.Tensor]) -> float:
    """The least that calls with all of these take."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        for x in sizes:
            layer(x)
        taken.append(time.process_time() - began)
    return min(taken)


# --- fused projections -------------------------------------------------------------------------


@pytest.mark.slow
def test_fused_projections_give_the_same_picture_and_exclude_loras(tmp_path: Path) -> None:
    asked = EngineJob("job", request(num_inference_steps=4))
    (plain,) = developed(run(make_engine(tmp_path), asked))
    engine = make_engine(tmp_path, fuse_qkv=True)

    (fused,) = developed(run(engine, asked))

    assert_equal(fused, plain)
    (event,) = run(engine, EngineJob("lora", request(loras=(Lora(name="ink"),))))
    assert isinstance(event, Failed)
    assert (event.kind, "fuse_qkv" in event.detail) == ("request", True)


# --- tiny VAE ----------------------------------------------------------------------------------


def test_the_tiny_vae_decodes_where_it_is_switched_on(tmp_path: Path) -> None:
    folder = tiny.sd1(tmp_path / "models" / "sd1")
    (folder / "darkroom.json").write_text('{"tiny_vae": "small"}')
    tiny.tiny_vae().save_pretrained(tmp_path / "vae" / "small")
    asked = small("sd1", num_inference_steps=2)

    (own,) = developed(run(make_engine(tmp_path), asked))
    engine = make_engine(tmp_path, tiny_vae=True)
    (rough,) = developed(run(engine, asked))

    assert rough.size == own.size
    assert rough.tobytes() != own.tobytes()
